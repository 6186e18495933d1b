import { type Http1Connection, requestHead } from '../harness/load/http1-connection.ts';
import { askPath, ID_HEADER } from '../harness/upstream/answers.ts';
import { Context } from './context.ts';
import { startRig } from './rig.ts';

/**
 * `idle-race.ts [FROM [TO [GRACE_MS [AFTER_MS [SPREAD_MS]]]]]`: 100 silent HTTP/1 connections, each of which asks once more
 * at a random moment around AFTER_MS after the drain order. With a grace near AFTER_MS it measures how often a request
 * meets the close; with a longer one none does. Measured rates: docs/measured.md.
 */
const CONNECTIONS = 100;
const [from = '1.40.0', to = '1.40.0', grace = '2500', after = '2650', spread = '200'] = process.argv.slice(2);
const never = new Promise<void>(() => {});
const rig = await startRig(from, { http1: { silentIdleGraceMs: Number(grace) } });
try {
  const context = new Context({
    name: 'idle',
    transport: 'plain',
    moments: { told: never, sessionsEnd: never },
    ...rig,
  });
  const ask = async (on: Http1Connection): Promise<void> => {
    const id = context.tally.nextId();
    try {
      const head = requestHead({ id, path: askPath({ size: 1 }), host: 'idle', idHeader: ID_HEADER });
      const { status } = await on.request(head, undefined, 10_000);
      if (status === 200) context.tally.ok(id);
      else context.tally.fail(id, `status ${status}`);
    } catch (error) {
      context.tally.fail(id, (error as Error).message);
    }
  };
  const held = await Promise.all(Array.from({ length: CONNECTIONS }, () => context.http1()));
  await Promise.all(held.map(ask));
  await rig.upgrade(to);
  let closed = 0;
  const again = held.map(async (on) => {
    const delay = Number(after) + (Math.random() * 2 - 1) * Number(spread);
    await new Promise((resolve) => setTimeout(resolve, delay));
    if (on.done) closed++;
    else await ask(on);
  });
  await Promise.all(again);
  const { answered, failures } = context.tally;
  const asked = answered.size - CONNECTIONS;
  console.log(`${from}: ${asked} answered, ${closed} closed before they asked, ${failures.length} failed`);
  for (const { what } of failures) console.log(`  ${what}`);
} finally {
  await rig.close();
}
process.exit(0);
