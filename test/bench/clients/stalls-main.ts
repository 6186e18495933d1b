import type { Span } from '../stalls.ts';
import { now } from './clock.ts';
import { answerParent } from './worker.ts';

const WAKE_MS = 1;
const STALL_MS = 1;
/** How long it looks before it hears its parent again. */
const LOOK_MS = 50;

/** Wakes each millisecond and notes when it could not: the process of one core's witness. */
const never = new Int32Array(new SharedArrayBuffer(4));
let spans: Span[] = [];
let last = now();

function look(): void {
  const until = last + LOOK_MS;
  while (last < until) {
    Atomics.wait(never, 0, 0, WAKE_MS);
    const at = now();
    if (at - last - WAKE_MS > STALL_MS) spans.push([last + WAKE_MS, at]);
    last = at;
  }
  setImmediate(look);
}

look();
answerParent<'report', readonly Span[]>(async () => {
  const told = spans;
  spans = [];
  return told;
});
