import { parentPort, workerData } from 'node:worker_threads';
import { runIdle } from '../native/sched.ts';
import { look, lookFor } from './look.ts';

/** What inside.ts asks a worker. */
export interface LookQuestion {
  readonly binary: string;
  /** Which of these it carries is asked, and nothing else. */
  readonly texts?: readonly string[];
  readonly idle: boolean;
}

const { binary, texts, idle } = workerData as LookQuestion;
if (idle) runIdle(0);
parentPort?.postMessage(texts === undefined ? await look(binary) : await lookFor(binary, texts));
