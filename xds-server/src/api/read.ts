import { SluiceError } from '@sluice/contract';
import type { z } from 'zod';

/** A request's body or query by its schema. Throws INPUT_INVALID naming the first wrong field. */
export function read<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.join('.') || 'body';
  throw new SluiceError('INPUT_INVALID', `${path}: ${issue?.message ?? 'wrong'}`);
}
