import type { V1MutatingWebhookConfiguration, V1Secret } from '@kubernetes/client-node';
import { Backoff, pause } from '../kube/backoff.ts';
import { isReason, type Kind, type KubeClient } from '../kube/client.ts';
import { Informer } from '../kube/informer.ts';
import type { Log } from '../log.ts';
import { nextCertificates, readCertificates, writeCertificates } from './certificate-secret.ts';
import { bundleOf, type CertificateTimes, planCertificates } from './certificates.ts';
import type { Identity } from './x509.ts';

export const SECRETS: Kind = { apiVersion: 'v1', kind: 'Secret', plural: 'secrets' };
export const WEBHOOKS: Kind = {
  apiVersion: 'admissionregistration.k8s.io/v1',
  kind: 'MutatingWebhookConfiguration',
  plural: 'mutatingwebhookconfigurations',
};
/** Timers of Node end at 2^31 ms; a day is often enough to look. */
const LONGEST_WAIT_MS = 86_400_000;

export interface CertificateKeeperOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  /** Names of the Secret and of the MutatingWebhookConfiguration. */
  readonly secret: string;
  readonly configuration: string;
  /** DNS names and addresses by which API servers call. */
  readonly names: readonly string[];
  readonly times: CertificateTimes;
  readonly log: Log;
  /** There is another certificate to serve with. */
  readonly onServing: (identity: Identity) => void;
}

/**
 * Every replica reads the Secret and serves with what is in it (`run`); the leader writes it, and the caBundle (`lead`). Both writes
 * carry the resourceVersion that was read, so a leader whose term is over changes nothing that has changed since.
 */
export class CertificateKeeper {
  readonly #options: CertificateKeeperOptions;
  #served: Identity | undefined;
  #wake: () => void = () => undefined;

  constructor(options: CertificateKeeperOptions) {
    this.#options = options;
  }

  /** Until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, namespace, secret, log } = this.#options;
    const changed = (object: V1Secret) => {
      this.#wake();
      const serving = readCertificates(object)?.serving;
      if (serving === undefined || serving.certificate === this.#served?.certificate) return;
      this.#served = serving;
      this.#options.onServing(serving);
    };
    const fields = `metadata.name=${secret}`;
    await new Informer<V1Secret>(
      client,
      SECRETS,
      { changed, gone: () => this.#wake() },
      { namespace, fields, log },
    ).run(signal);
  }

  /** As long as this is the leader. */
  async lead(signal: AbortSignal): Promise<void> {
    const { client, configuration, log } = this.#options;
    const handler = { changed: () => this.#wake(), gone: () => this.#wake() };
    const watched = new Informer(client, WEBHOOKS, handler, { fields: `metadata.name=${configuration}`, log });
    const watching = watched.run(signal);
    const backoff = new Backoff();
    while (!signal.aborted) {
      // Whatever comes from here on is a reason to look again.
      const woken = new AbortController();
      this.#wake = () => woken.abort();
      let waitMs: number;
      try {
        waitMs = await this.#step(signal);
        backoff.reset();
      } catch (error) {
        if (signal.aborted) break;
        waitMs = backoff.next();
        // Another one wrote: what it wrote is read next.
        const message = (error as Error).message;
        if (!isReason(error, 'Conflict', 'AlreadyExists'))
          log.warn({ error: message, waitMs }, 'certificates: again later');
        await pause(waitMs, signal);
        continue;
      }
      await pause(waitMs, AbortSignal.any([signal, woken.signal]));
    }
    await watching;
  }

  /** One look, and what follows from it. Resolves with how long nothing is to be done. */
  async #step(signal: AbortSignal): Promise<number> {
    const { client, namespace, secret: name, names, times, log } = this.#options;
    const stored = await orNothing(client.get<V1Secret>(SECRETS, { namespace, name }, signal));
    const configuration = await this.#configuration(signal);
    const state = stored && readCertificates(stored);
    const published = configuration === undefined ? undefined : publishedIn(configuration);
    const now = Date.now();
    const step = planCertificates(state, { now, names, published }, times);
    if (step.type !== 'wait') {
      log.info({ step: step.type, why: step.why }, 'certificates of the webhook');
      const secret = writeCertificates(
        await nextCertificates(step, state, names, now, times),
        { namespace, name },
        stored,
      );
      await (stored === undefined ? client.create(SECRETS, secret, signal) : client.replace(SECRETS, secret, signal));
      return 0;
    }
    if (state !== undefined && configuration !== undefined && published !== bundleOf(state)) {
      await this.#publish(configuration, bundleOf(state), signal);
      return 0;
    }
    return Math.max(0, Math.min(LONGEST_WAIT_MS, step.until - now));
  }

  async #configuration(signal: AbortSignal): Promise<V1MutatingWebhookConfiguration | undefined> {
    const { client, configuration: name, log } = this.#options;
    const found = await orNothing(client.get<V1MutatingWebhookConfiguration>(WEBHOOKS, { name }, signal));
    if (found === undefined) log.warn({ name }, 'there is no such MutatingWebhookConfiguration: nothing is injected');
    return found;
  }

  async #publish(configuration: V1MutatingWebhookConfiguration, bundle: string, signal: AbortSignal): Promise<void> {
    const caBundle = Buffer.from(bundle).toString('base64');
    const { name, resourceVersion } = configuration.metadata ?? {};
    // A strategic merge: webhooks are a map by name, and the rest of each stays as it is.
    const webhooks = configuration.webhooks?.map((webhook) => ({ name: webhook.name, clientConfig: { caBundle } }));
    const change = { metadata: { resourceVersion }, webhooks };
    await this.#options.client.patch(WEBHOOKS, { name }, 'strategic', change, signal);
    this.#options.log.info({ name }, 'caBundle written');
  }
}

/** The bundle that all webhooks of a configuration have; '' when they differ or have none. */
function publishedIn({ webhooks = [] }: V1MutatingWebhookConfiguration): string {
  const all = new Set(webhooks.map(({ clientConfig }) => clientConfig.caBundle ?? ''));
  const [one = ''] = all;
  return all.size === 1 ? Buffer.from(one, 'base64').toString() : '';
}

async function orNothing<T>(call: Promise<T>): Promise<T | undefined> {
  try {
    return await call;
  } catch (error) {
    if (isReason(error, 'NotFound')) return undefined;
    throw error;
  }
}
