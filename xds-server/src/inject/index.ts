import { z } from 'zod';
import type { KubeClient } from '../kube/client.ts';
import type { Log } from '../log.ts';
import type { Reviewed } from './admission.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import { CERTIFICATE_TIMES } from './certificates.ts';
import { injectionSchema } from './config.ts';
import { WebhookServer } from './server.ts';

const days = z.number().positive().max(3_650);
const ms = z.number().int().min(0).max(2_592_000_000);
const objectName = z
  .string()
  .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, 'expected the name of an object')
  .max(253);

/** `kubernetes.injection` of the controller's configuration. */
export const webhookSchema = z.strictObject({
  /** What is injected. */
  sidecar: injectionSchema,
  /** Address of the webhook. Port 0 = any free one. */
  listen: z
    .string()
    .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, 'expected HOST:PORT')
    .default('0.0.0.0:9443'),
  /** Of the Service by which API servers call, in the controller's namespace. */
  service: objectName.default('sluice-webhook'),
  /** Further names and addresses by which they call. */
  names: z.array(z.string().min(1)).default([]),
  /** Of the Secret with the certificates, in the controller's namespace. */
  secret: objectName.default('sluice-webhook'),
  /** Of the MutatingWebhookConfiguration. */
  configuration: objectName.default('sluice-injection'),
  certificates: z
    .strictObject({
      authorityDays: days.default(CERTIFICATE_TIMES.authorityDays),
      servingDays: days.default(CERTIFICATE_TIMES.servingDays),
      settleMs: ms.default(CERTIFICATE_TIMES.settleMs),
      overlapMs: ms.default(CERTIFICATE_TIMES.overlapMs),
    })
    .prefault({}),
});

export type WebhookConfig = z.input<typeof webhookSchema>;
export type ResolvedWebhook = z.output<typeof webhookSchema>;

export interface StartInjectionOptions {
  readonly client: KubeClient;
  /** The controller's own. */
  readonly namespace: string;
  readonly config: ResolvedWebhook;
  readonly log: Log;
  readonly onReview?: ((reviewed: Reviewed) => void) | undefined;
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
export function startInjection({ client, namespace, config, log, onReview }: StartInjectionOptions): Injector {
  const stop = new AbortController();
  const colon = config.listen.lastIndexOf(':');
  const host = config.listen.slice(0, colon).replace(/^\[|\]$/g, '');
  const port = Number(config.listen.slice(colon + 1));
  const server = new WebhookServer({ host, port, config: config.sidecar, log, onReview });
  const serving = Promise.withResolvers<void>();
  // Somebody may not wait for it.
  serving.promise.catch(() => undefined);
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
      server.serve(identity).then(serving.resolve, (error: Error) => {
        log.error({ err: error }, 'webhook: the certificate can not be served');
        serving.reject(error);
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
