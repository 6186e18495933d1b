import type { V1Pod } from '@kubernetes/client-node';
import { SluiceError } from '@sluice/contract';
import { z } from 'zod';

const texts = z.record(z.string(), z.string()).nullish();
const named = z.array(z.looseObject({ name: z.string() }));
const ports = z.array(z.looseObject({ containerPort: z.number() })).optional();
const containers = z.array(z.looseObject({ name: z.string(), ports }));

/** What injection reads of a Pod; the rest may be anything, and stays. */
const pod = z.looseObject({
  metadata: z.looseObject({ labels: texts, annotations: texts }).nullish(),
  spec: z.looseObject({
    containers,
    initContainers: containers.optional(),
    volumes: named.optional(),
    terminationGracePeriodSeconds: z.number().int().optional(),
  }),
});

/** That very object, when it has a Pod's form. Throws INPUT_INVALID naming the first wrong field. */
export function asPod(value: unknown, where: string): V1Pod {
  const result = pod.safeParse(value);
  if (result.success) return value as V1Pod;
  const [issue] = result.error.issues;
  throw new SluiceError('INPUT_INVALID', `${[where, ...(issue?.path ?? [])].join('.')}: ${issue?.message ?? 'wrong'}`);
}
