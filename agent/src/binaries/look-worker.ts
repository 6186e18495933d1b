import { parentPort, workerData } from 'node:worker_threads';
import { runIdle } from '../native/sched.ts';
import { look } from './look.ts';

/** What inside.ts asks a worker. */
export interface LookQuestion {
  readonly binary: string;
  readonly idle: boolean;
}

const { binary, idle } = workerData as LookQuestion;
if (idle) runIdle(0);
parentPort?.postMessage(await look(binary));
