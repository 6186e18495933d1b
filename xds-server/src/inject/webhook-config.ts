import { isIP } from 'node:net';
import { z } from 'zod';
import { CERTIFICATE_TIMES } from './certificates.ts';
import { injectionSchema, parsed } from './config.ts';

const days = z.number().positive().max(3_650);
const ms = z.number().int().min(0).max(2_592_000_000);
const objectName = z
  .string()
  .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, 'expected the name of an object')
  .max(253);

const LABEL = '[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?';
const HOST = new RegExp(`^${LABEL}(\\.${LABEL})*$`);
/** What a certificate can be for. A name that is never found in the one that is made would be made again without end. */
const host = z
  .string()
  .max(253)
  .refine((text) => (isIP(text) === 0 ? HOST.test(text) : !text.includes('%')), {
    message: 'expected the name of a host or an address, without a port',
  });

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
  names: z.array(host).default([]),
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

/** Throws CONFIG_INVALID naming the first wrong field. @param where such as `kubernetes.injection` */
export function parseWebhook(config: unknown, where: string): ResolvedWebhook {
  return parsed(webhookSchema, config, where);
}
