import type { KubeClient } from '../kube/client.ts';
import type { Log } from '../log.ts';
import type { Reviewed } from './admission.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import { WebhookServer } from './server.ts';
import type { ResolvedWebhook } from './webhook-config.ts';

export interface StartInjectionOptions {
  readonly client: KubeClient;
  /** The controller's own. */
  readonly namespace: string;
  readonly config: ResolvedWebhook;
  readonly log: Log;
  readonly onReview?: ((reviewed: Reviewed) => void) | undefined;
  /** How long it answers after `close`, milliseconds. */
  readonly lingerMs?: number | undefined;
}

export interface Injector {
  /** Resolves when the webhook answers for the first time: there is a certificate. */
  readonly serving: Promise<void>;
  /** 0 until then. */
  readonly port: number;
  /** Keeps the certificates until the signal of the term is aborted; for the leader alone. */
  lead(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** Every replica answers the API server with the certificate of the Secret, from the moment on that there is one. */
export function startInjection({
  client,
  namespace,
  config,
  log,
  onReview,
  lingerMs,
}: StartInjectionOptions): Injector {
  const stop = new AbortController();
  const colon = config.listen.lastIndexOf(':');
  const host = config.listen.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(config.listen.slice(colon + 1));
  const server = new WebhookServer({ host, port, config: config.sidecar, log, onReview, lingerMs });
  const serving = Promise.withResolvers<void>();
  const service = `${config.service}.${namespace}.svc`;
  const keeper = new CertificateKeeper({
    client,
    namespace,
    secret: config.secret,
    configuration: config.configuration,
    names: [service, ...config.names],
    times: config.certificates,
    log,
    onServing: (identity) => {
      // One that can not be served may be followed by another that can.
      server.serve(identity).then(serving.resolve, (error: Error) => {
        log.error({ err: error }, 'webhook: the certificate can not be served');
      });
    },
  });
  const running = keeper.run(stop.signal);
  return {
    serving: serving.promise,
    get port() {
      return server.port;
    },
    lead: (signal) => keeper.lead(AbortSignal.any([signal, stop.signal])),
    async close() {
      stop.abort();
      await Promise.all([running, server.close()]);
    },
  };
}
