import { requestHead } from '../harness/load/http1-connection.ts';
import { answerBody, askPath, ID_HEADER } from '../harness/upstream/answers.ts';
import type { Transport } from './bootstrap.ts';
import { Context } from './context.ts';
import type { Rig } from './rig.ts';

const NEVER = new Promise<void>(() => {});

const nextTurn = () => new Promise((resolve) => setTimeout(resolve, 5));

export interface FreshLoad {
  readonly answered: number;
  readonly failures: readonly string[];
}

/**
 * New HTTP/1 connections at a steady rate, each asking once, `gapMs` after its handshake: as from a client so far away. They
 * are begun by the clock, and never again. `stop` goes on until so many are answered, or one has failed: how many a machine
 * manages while it hands over is not what is asked.
 */
export function freshConnections(
  rig: Rig,
  transport: Transport,
  perSecond: number,
  gapMs: number,
): { stop(atLeast: number): Promise<FreshLoad> } {
  const context = new Context({ name: 'fresh', transport, moments: { told: NEVER, sessionsEnd: NEVER }, ...rig });
  const { tally } = context;
  const once = async () => {
    const id = tally.nextId();
    try {
      const on = await context.http1();
      await new Promise((resolve) => setTimeout(resolve, gapMs));
      const head = requestHead({ id, path: askPath({ size: 10 }), host: 'fresh', idHeader: ID_HEADER, close: true });
      const answer = await on.request(head, undefined, 10_000);
      if (answer.status === 200 && answer.body.equals(answerBody(id, 10))) tally.ok(id);
      else tally.fail(id, `status ${answer.status}`);
      on.close();
    } catch (error) {
      tally.fail(id, (error as Error).message);
    }
  };
  const pending = new Set<Promise<void>>();
  const begun = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - begun) / 1_000) * perSecond);
    for (; sent < due && pending.size < 2_000; sent++) {
      const one = once();
      pending.add(one);
      void one.finally(() => pending.delete(one));
    }
    sent = Math.max(sent, due);
  }, 5);
  return {
    async stop(atLeast) {
      while (tally.answered.size < atLeast && tally.failures.length === 0) await Promise.race([...pending, nextTurn()]);
      clearInterval(timer);
      await Promise.all(pending);
      context.close();
      return { answered: tally.answered.size, failures: tally.failures.map(({ what }) => what) };
    },
  };
}
