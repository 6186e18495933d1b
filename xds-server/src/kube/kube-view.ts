import type { V1Pod } from '@kubernetes/client-node';
import type { DrainPolicy } from '@sluice/contract';
import type { Log } from '../log.ts';
import { type KubeClient, PODS } from './client.ts';
import { DRAIN_POLICIES, type DrainPolicyObject, HOT_UPGRADES, type HotUpgrade, policyOf } from './hotupgrade.ts';
import { type Claims, claimsOf, ownerOf } from './hotupgrade-claims.ts';
import { Informer } from './informer.ts';
import { selects } from './selector.ts';
import { podOfProxy } from './words.ts';

export interface ViewListener {
  /** Something that this HotUpgrade depends on changed. Key: `NAMESPACE/NAME`. */
  hotUpgrade(key: string): void;
  drainPolicy(key: string): void;
  podGone(pod: V1Pod): void;
}

export interface ViewOptions {
  /** Only this one; all namespaces when absent. */
  readonly namespace?: string | undefined;
  /** What a drain policy's missing fields are. */
  readonly standard: DrainPolicy;
  readonly log: Log;
}

/**
 * What the API server says of Pods, HotUpgrades and DrainPolicies. Every replica keeps it, whoever leads: the policy of a drain is
 * looked up here by the replica that has the proxy.
 */
export class KubeView {
  readonly #pods: Informer<V1Pod>;
  readonly #hups: Informer<HotUpgrade>;
  readonly #policies: Informer<DrainPolicyObject>;
  /** DrainPolicies that are gone, and that a HotUpgrade named: what it has begun goes on by them. */
  readonly #left = new Map<string, DrainPolicyObject>();
  readonly #byNamespace = new Map<string, Map<string, V1Pod>>();
  readonly #listeners = new Set<ViewListener>();
  readonly #standard: DrainPolicy;
  readonly #namespace: string | undefined;

  constructor(client: Pick<KubeClient, 'list' | 'watch'>, { namespace, standard, log }: ViewOptions) {
    this.#standard = standard;
    this.#namespace = namespace;
    const options = { namespace, log };
    this.#pods = new Informer<V1Pod>(
      client,
      PODS,
      { changed: (pod, old) => this.#podChanged(pod, old), gone: (pod) => this.#podGone(pod) },
      options,
    );
    this.#hups = new Informer<HotUpgrade>(
      client,
      HOT_UPGRADES,
      { changed: (hup) => this.#hupChanged(hup), gone: (hup) => this.#hupChanged(hup) },
      options,
    );
    this.#policies = new Informer<DrainPolicyObject>(
      client,
      DRAIN_POLICIES,
      { changed: (policy) => this.#policyChanged(policy), gone: (policy) => this.#policyGone(policy) },
      options,
    );
  }

  /** Until the signal is aborted; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#pods.run(signal), this.#hups.run(signal), this.#policies.run(signal)]);
  }

  /** Resolves after the first list of each kind. */
  async synced(): Promise<void> {
    await Promise.all([this.#pods.synced, this.#hups.synced, this.#policies.synced]);
  }

  /** @returns ends it */
  listen(listener: ViewListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  covers(namespace: string): boolean {
    return this.#namespace === undefined || this.#namespace === namespace;
  }

  pod(namespace: string, name: string): V1Pod | undefined {
    return this.#pods.get(namespace, name);
  }

  hotUpgrades(): readonly HotUpgrade[] {
    return this.#hups.items();
  }

  hotUpgrade(namespace: string, name: string): HotUpgrade | undefined {
    return this.#hups.get(namespace, name);
  }

  drainPolicies(): readonly DrainPolicyObject[] {
    return this.#policies.items();
  }

  drainPolicy(namespace: string, name: string): DrainPolicyObject | undefined {
    return this.#policies.get(namespace, name);
  }

  claims(hup: HotUpgrade): Claims {
    const pods = this.#byNamespace.get(hup.metadata?.namespace ?? '')?.values() ?? [];
    return claimsOf(hup, this.#hups.items(), [...pods]);
  }

  /**
   * The drain policy that the HotUpgrade of that proxy's Pod means; of one whose DrainPolicy was deleted the one it had. undefined: none has
   * the Pod, or it can not be resolved.
   */
  policyOf(proxy: string): DrainPolicy | undefined {
    const place = podOfProxy(proxy);
    const pod = place && this.pod(place.namespace, place.name);
    const hup = pod && ownerOf(pod, this.#hups.items());
    if (hup === undefined) return undefined;
    const known = (namespace: string, name: string): DrainPolicyObject | undefined =>
      this.drainPolicy(namespace, name) ?? this.#left.get(`${namespace}/${name}`);
    const found = policyOf(hup, known, this.#standard);
    return 'value' in found ? found.value : undefined;
  }

  /** Tells of whoever selects a Pod, such as when its agents said something. */
  touch(namespace: string, name: string): void {
    const pod = this.pod(namespace, name);
    if (pod !== undefined) this.#selecting([pod]);
  }

  #podChanged(pod: V1Pod, old: V1Pod | undefined): void {
    const namespace = pod.metadata?.namespace ?? '';
    const all = this.#byNamespace.get(namespace) ?? new Map<string, V1Pod>();
    this.#byNamespace.set(namespace, all.set(pod.metadata?.name ?? '', pod));
    this.#selecting(old === undefined ? [pod] : [pod, old]);
  }

  #podGone(pod: V1Pod): void {
    this.#byNamespace.get(pod.metadata?.namespace ?? '')?.delete(pod.metadata?.name ?? '');
    for (const listener of this.#listeners) listener.podGone(pod);
    this.#selecting([pod]);
  }

  #selecting(pods: readonly V1Pod[]): void {
    for (const hup of this.#hups?.items() ?? []) {
      if (hup.metadata?.namespace !== pods[0]?.metadata?.namespace) continue;
      if (pods.some(({ metadata }) => selects(hup.spec.selector, metadata?.labels))) this.#tell(hup);
    }
  }

  /** One that comes or goes may give Pods to, or take them from, each of its namespace. */
  #hupChanged(hup: HotUpgrade): void {
    this.#tell(hup);
    for (const other of this.#hups?.items() ?? [])
      if (other.metadata?.namespace === hup.metadata?.namespace) this.#tell(other);
  }

  #policyGone(policy: DrainPolicyObject): void {
    this.#policyChanged(policy);
    const { namespace, name } = policy.metadata ?? {};
    const isNamed = ({ metadata, spec }: HotUpgrade): boolean =>
      metadata?.namespace === namespace && spec.policy?.name === name;
    if (this.#hups.items().some(isNamed)) this.#left.set(`${namespace}/${name}`, policy);
  }

  #policyChanged({ metadata }: DrainPolicyObject): void {
    this.#left.delete(`${metadata?.namespace}/${metadata?.name}`);
    for (const listener of this.#listeners) listener.drainPolicy(`${metadata?.namespace}/${metadata?.name}`);
    for (const hup of this.#hups?.items() ?? [])
      if (hup.metadata?.namespace === metadata?.namespace && hup.spec.policy?.name === metadata?.name) this.#tell(hup);
  }

  #tell({ metadata }: HotUpgrade): void {
    for (const listener of this.#listeners) listener.hotUpgrade(`${metadata?.namespace}/${metadata?.name}`);
  }
}
