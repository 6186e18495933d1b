import { Worker } from 'node:worker_threads';
import { SluiceError } from '@sluice/contract';
import { entryPoint } from '../entry-point.ts';
import { idleFirst } from './aside.ts';
import type { Inside } from './look.ts';
import type { LookQuestion } from './look-worker.ts';
import { oncePerBinary } from './once.ts';

const LIMIT_MS = 30_000;

/**
 * What an Envoy binary carries, once for each. A thread of its own reads it, in what the Envoy that serves leaves of the
 * cores. Throws PREFLIGHT_BINARY when it can not be read.
 */
export const inside = oncePerBinary((binary: string) => answerOf<Inside>({ binary }));

/** Those of `texts` that it carries; the same ones are asked of each binary. In the same way. */
export const carries = oncePerBinary((binary: string, texts: readonly string[]) =>
  answerOf<readonly string[]>({ binary, texts }),
);

async function answerOf<T>(question: Omit<LookQuestion, 'idle'>): Promise<T> {
  const found = await idleFirst((idleMs) => ask<T>({ ...question, idle: idleMs !== undefined }, idleMs ?? LIMIT_MS));
  if (found !== undefined) return found;
  throw new SluiceError('PREFLIGHT_BINARY', `expected to read ${question.binary}, found no end within ${LIMIT_MS} ms`);
}

/** Undefined = not within `limitMs`. */
async function ask<T>(question: LookQuestion, limitMs: number): Promise<T | undefined> {
  const worker = new Worker(entryPoint(import.meta, 'look-worker'), { workerData: question });
  const { promise, resolve, reject } = Promise.withResolvers<T | undefined>();
  const timer = setTimeout(resolve, limitMs, undefined);
  worker.once('message', resolve);
  worker.once('error', reject);
  worker.once('exit', (code) => reject(new Error(`the thread ended with ${code}`)));
  try {
    return await promise;
  } catch (cause) {
    const found = (cause as Error).message;
    throw new SluiceError('PREFLIGHT_BINARY', `expected to read ${question.binary}, found: ${found}`, { cause });
  } finally {
    clearTimeout(timer);
    await worker.terminate();
  }
}
