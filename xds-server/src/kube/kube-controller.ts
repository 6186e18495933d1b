import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { KubeConfig } from '@kubernetes/client-node';
import { type DrainPolicy, type RolloutEntry, SluiceError, toSluiceError } from '@sluice/contract';
import type { Injector } from '../inject/index.ts';
import type { Injected } from '../inject/template.ts';
import type { ResolvedWebhook } from '../inject/webhook-config.ts';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import type { ReplicaConfig } from '../replicas/self.ts';
import type { MetricsSource, Rollouts } from '../rollout/index.ts';
import type { RolloutState } from '../rollout/state.ts';
import type { Store } from '../store/store.ts';
import { Backoff, pause } from './backoff.ts';
import { isReason, KubeClient } from './client.ts';
import { type Term, takePart } from './election.ts';
import { missingFields } from './installed-crds.ts';
import { KubeView } from './kube-view.ts';
import { Reconciler } from './reconcile.ts';
import { Providers } from './reconcile-providers.ts';
import { sweep } from './sweep.ts';
import { KnownWords, UID_LABEL } from './words.ts';

/** `kubernetes:` of the controller's configuration. */
export interface KubernetesConfig {
  /** Path of a kubeconfig file; the Pod's own ServiceAccount without. */
  readonly kubeconfig?: string | undefined;
  /** Where the Lease and the state are; without: the Pod's own, else that of the kubeconfig's context. */
  readonly namespace?: string | undefined;
  /** HotUpgrades and Pods of this namespace only; all without. */
  readonly watch?: string | undefined;
  readonly lease: string;
  readonly replica?: ReplicaConfig | undefined;
  readonly injection?: ResolvedWebhook | undefined;
}

export interface KubeAccess {
  readonly client: KubeClient;
  readonly namespace: string;
  /** Of this process: never used twice. */
  readonly identity: string;
}

const OWN_NAMESPACE = '/var/run/secrets/kubernetes.io/serviceaccount/namespace';
const CHECKED = ['HotUpgrade', 'DrainPolicy'];
const CHECK_MS = 30_000;

/** Throws CONFIG_INVALID where there is no cluster to be found. */
export function kubeAccess({ kubeconfig, namespace }: KubernetesConfig): KubeAccess {
  const config = new KubeConfig();
  try {
    if (kubeconfig === undefined) config.loadFromCluster();
    else config.loadFromFile(kubeconfig);
  } catch (cause) {
    const where = kubeconfig ?? 'the ServiceAccount of a Pod';
    throw new SluiceError('CONFIG_INVALID', `kubernetes: expected ${where}, found none: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (config.getCurrentCluster() === null) {
    throw new SluiceError('CONFIG_INVALID', 'kubernetes: expected a kubeconfig or a Pod, found neither', {
      hint: 'give --kubeconfig, or run it in a Pod with a ServiceAccount',
    });
  }
  const context = config.getContextObject(config.getCurrentContext())?.namespace;
  return {
    client: new KubeClient(config),
    namespace: namespace ?? (kubeconfig === undefined ? ownNamespace() : context) ?? 'default',
    identity: `${hostname()}-${randomBytes(4).toString('hex')}`,
  };
}

function ownNamespace(): string | undefined {
  try {
    return readFileSync(OWN_NAMESPACE, 'utf8').trim();
  } catch {
    return undefined;
  }
}

export interface KubeParts {
  readonly config: KubernetesConfig;
  readonly access: KubeAccess;
  readonly store: Store;
  readonly agents: Agents;
  readonly verdict: ConstructorParameters<typeof KnownWords>[0]['verdict'];
  readonly isLive: (replica: string) => boolean;
  /** What a drain policy's missing fields are. */
  readonly standard: DrainPolicy;
  readonly metrics?: MetricsSource | undefined;
  readonly log: Log;
  readonly onRollout: (state: RolloutState) => void;
  readonly onEntry: (entry: RolloutEntry) => void;
  /** The Pod of a proxy is gone, and what was stored of it. */
  readonly onGone: (proxy: string) => void;
  /** A term of leading begins here. */
  readonly onLead?: ((term: Term) => void) | undefined;
  /** A Pod was, or was not, given the sidecar. */
  readonly onInjection?: ((result: Injected['type']) => void) | undefined;
}

/** The controller's part in Kubernetes: every replica knows what is wanted, the leader carries it out. */
export class KubeController {
  readonly view: KubeView;
  readonly words: KnownWords;
  readonly #parts: KubeParts;
  readonly #providers: (signal: AbortSignal, again: () => void) => Providers;
  #missing: Readonly<Record<string, readonly string[]>> = {};
  #term: Term | undefined;
  #reconciler: Reconciler | undefined;
  #done: Promise<unknown> = Promise.resolve();
  #injector: Promise<Injector> | undefined;
  #injects = true;
  /** The installed CRDs were looked at. */
  readonly #checked = Promise.withResolvers<void>();

  constructor(parts: KubeParts) {
    this.#parts = parts;
    const { access, config, standard, log, agents, verdict, isLive } = parts;
    this.view = new KubeView(access.client, { namespace: config.watch, standard, log });
    this.words = new KnownWords({ agents, verdict, isLive });
    this.#providers = (signal, again) => new Providers(access.client, again, log, signal);
  }

  /** Fence of this replica's term; undefined: another one leads. */
  get fence(): number | undefined {
    return this.#term?.signal.aborted === false ? this.#term.fence : undefined;
  }

  /** Those of HotUpgrades. undefined: this replica does not lead, or does not yet. */
  get rollouts(): Rollouts | undefined {
    return this.fence === undefined ? undefined : this.#reconciler?.rollouts;
  }

  /** What is not well, for /readyz. */
  get troubles(): string[] {
    const missing = Object.values(this.#missing).flat();
    return [
      ...(missing.length === 0
        ? []
        : [`kubernetes: the installed CRDs lack ${missing.length} fields: apply deploy/crds`]),
      // The API server is to call those that answer.
      ...(this.#injects ? [] : ['injection: the webhook does not serve yet: it has no certificate']),
    ];
  }

  /** Begins, in the background: the API server may be away. */
  start(signal: AbortSignal): void {
    const { access, config, log } = this.#parts;
    const { client, namespace, identity } = access;
    if (config.injection !== undefined) this.#injector = this.#inject(config.injection);
    const lead = (term: Term): void => void this.#lead(term);
    this.#done = Promise.all([
      this.view.run(signal),
      takePart(client, { namespace, name: config.lease, identity, log }, lead, signal),
      this.#check(signal),
    ]);
  }

  /** Resolves when Pods and HotUpgrades were listed once, or when that takes too long: the API server is away. */
  async listed(limitMs: number): Promise<void> {
    await Promise.race([this.view.synced(), delay(limitMs, undefined, { ref: false })]);
  }

  /** Resolves when the lease is given back, after the signal of `start` was aborted. */
  async ended(): Promise<void> {
    const injector = await this.#injector;
    await Promise.all([this.#done, injector?.close()]);
  }

  /** An agent of that proxy came, went, or said something. */
  changed(proxy: string): void {
    this.words.changed(proxy);
  }

  /** An Envoy crashed whose agent is that of the slot. */
  crashed(proxy: string, slot: string): void {
    const uid = this.#parts.agents.entry(proxy, slot)?.labels?.[UID_LABEL];
    if (this.rollouts !== undefined) this.#reconciler?.crashed(proxy, uid, slot);
  }

  /** Every replica answers; the leader has the certificates. */
  async #inject(config: ResolvedWebhook): Promise<Injector> {
    this.#injects = false;
    const { access, log, onInjection } = this.#parts;
    const { client, namespace } = access;
    // Only here: what makes certificates is not small.
    const { startInjection } = await import('../inject/index.ts');
    const onReview = ({ result }: { readonly result: Injected['type'] }) => onInjection?.(result);
    const injector = startInjection({ client, namespace, config, log, onReview });
    const serves = () => {
      this.#injects = true;
    };
    injector.serving.then(serves, () => undefined);
    return injector;
  }

  async #lead(term: Term): Promise<void> {
    const { access, config, store, standard, metrics, log, onRollout, onEntry, onGone } = this.#parts;
    this.#term = term;
    // That of the term before takes no more orders.
    this.#reconciler = undefined;
    this.#parts.onLead?.(term);
    void this.#injector?.then((injector) => injector.lead(term.signal));
    const backoff = new Backoff();
    await Promise.all([this.view.synced(), this.#checked.promise]);
    const pod = (namespace: string, name: string) => this.view.pod(namespace, name);
    void sweep({ store, pod, watch: config.watch, onGone, log }, term.signal);
    const providers = this.#providers(term.signal, () => this.#reconciler?.again());
    while (!term.signal.aborted) {
      const attempt = new AbortController();
      const reconciler = new Reconciler({
        client: access.client,
        view: this.view,
        words: this.words,
        store,
        providers,
        metrics,
        standard,
        log,
        fence: term.fence,
        signal: AbortSignal.any([term.signal, attempt.signal]),
        identity: access.identity,
        missing: () => this.#missing,
        onRollout,
        onEntry,
      });
      try {
        this.#reconciler = reconciler;
        await reconciler.start();
        log.info({ fence: term.fence }, 'HotUpgrades are carried out here');
        return;
      } catch (thrown) {
        attempt.abort();
        const waitMs = backoff.next();
        if (term.signal.aborted) return;
        log.warn({ err: toSluiceError(thrown), waitMs }, 'leading could not begin: again later');
        await pause(waitMs, term.signal);
      }
    }
  }

  /** Looks whether the installed CRDs are of this version, until they are. */
  async #check(signal: AbortSignal): Promise<void> {
    const { access, log } = this.#parts;
    const backoff = new Backoff(1_000, CHECK_MS);
    let told = '';
    while (!signal.aborted) {
      try {
        this.#missing = await missingFields(access.client, CHECKED, signal);
        const missing = Object.values(this.#missing).flat();
        this.#checked.resolve();
        this.#reconciler?.again();
        if (missing.length === 0) return;
        const text = missing.join(', ');
        if (text !== told)
          log.error({ missing }, 'the installed CRDs are older than this controller: apply deploy/crds');
        told = text;
      } catch (thrown) {
        if (signal.aborted) return;
        // Who may not read the OpenAPI is not kept from work by it.
        if (isReason(thrown, 'Forbidden')) this.#checked.resolve();
        log.warn({ err: toSluiceError(thrown) }, 'the installed CRDs could not be looked at: again later');
      }
      await pause(backoff.next(), signal);
    }
  }
}
