import { z } from 'zod';
import { CERTIFICATE_TIMES } from './certificates.ts';
import { injectionSchema, parsed } from './config.ts';

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

/** Throws CONFIG_INVALID naming the first wrong field. @param where such as `kubernetes.injection` */
export function parseWebhook(config: unknown, where: string): ResolvedWebhook {
  return parsed(webhookSchema, config, where);
}
