import { type AgentMessage, ENDED_BATCH, type EndedConnection } from '@sluice/contract';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { backoffMs } from './backoff.ts';
import { MAX_FACTS, Outbox } from './outbox.ts';

const message: fc.Arbitrary<AgentMessage> = fc.oneof(
  fc.record({ type: fc.constant('crashed' as const), epoch: fc.nat(1000), at: fc.nat() }),
  fc.record({ type: fc.constant('epochs' as const), epochs: fc.constant([]) }),
  fc.record({
    type: fc.constant('checked' as const),
    requestId: fc.string(),
    ok: fc.boolean(),
    checks: fc.constant([]),
  }),
);
const step = fc.oneof(
  fc.record({ do: fc.constant('push' as const), message }),
  fc.constant({ do: 'take' as const }),
  fc.constant({ do: 'disconnect' as const }),
);

test('whatever happens, it stays bounded, tells facts in order and loses none that was not taken', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const box = new Outbox();
      const facts: AgentMessage[] = [];
      const told = new Set<AgentMessage>();
      for (const s of steps) {
        if (s.do === 'push') {
          box.push(s.message);
          if (s.message.type === 'crashed') facts.push(s.message);
        } else if (s.do === 'take') {
          const taken = box.take(0);
          if (taken !== undefined) told.add(taken);
        } else box.disconnected(0);
        expect(box.size).toBeLessThanOrEqual(MAX_FACTS);
      }
      const rest: AgentMessage[] = [];
      for (let m = box.take(0); m !== undefined; m = box.take(0)) rest.push(m);
      for (const fact of facts) expect(told.has(fact) || rest.includes(fact)).toBe(true);
      const order = rest.filter((m) => m.type === 'crashed').map((m) => facts.indexOf(m));
      expect(order).toEqual([...order].sort((a, b) => a - b));
      expect(rest.filter((m) => m.type === 'epochs').length).toBeLessThanOrEqual(1);
    }),
  );
});

test('past its bound the oldest go and are counted', () => {
  const box = new Outbox();
  for (let at = 0; at < MAX_FACTS + 10; at++) box.push({ type: 'crashed', epoch: 0, at });
  expect(box.size).toBe(MAX_FACTS);
  expect(box.dropped).toBe(10);
  expect(box.take(0)).toMatchObject({ at: 10 });
});

test('the ends of a drain gather while nobody hears, and each message stays within its bound', () => {
  const box = new Outbox();
  const ends = (from: number, count: number) =>
    Array.from({ length: count }, (_, n) => ({ connection: { id: String(from + n) } }) as EndedConnection);
  const ended = (items: readonly EndedConnection[], dropped = 0, epoch = 1) =>
    ({ type: 'ended', upgradeId: 'u', epoch, items, dropped }) as const;
  for (let n = 0; n < MAX_FACTS * 2; n++) box.push(ended(ends(n, 1)));
  box.push(ended(ends(2_000, 1), 0, 2));
  box.push(ended(ends(5_000, ENDED_BATCH * 2), 4));
  box.push(ended([], 6));
  expect(box.dropped).toBe(0);
  const heard: string[] = [];
  let dropped = 0;
  for (let m = box.take(0); m !== undefined; m = box.take(0)) {
    if (m.type !== 'ended') throw new Error(m.type);
    expect(m.items.length).toBeLessThanOrEqual(ENDED_BATCH);
    if (m.epoch === 1) dropped = m.dropped;
    heard.push(...m.items.map((one) => one.connection.id));
  }
  expect(dropped).toBe(6);
  expect(new Set(heard).size).toBe(heard.length);
  expect(heard.length).toBe(MAX_FACTS * 2 + 1 + ENDED_BATCH * 2);
});

test('an answer goes with the connection that asked', () => {
  const box = new Outbox();
  box.push({ type: 'checked', requestId: 'r', ok: true, checks: [] });
  box.disconnected(0);
  expect(box.size).toBe(0);
});

test('a fact written long before the loss is not told again', () => {
  const box = new Outbox();
  box.push({ type: 'crashed', epoch: 0, at: 0 });
  box.take(1_000);
  box.disconnected(1_001);
  expect(box.size).toBe(0);
});

test('the back-off stays between half a step and its maximum', () => {
  fc.assert(
    fc.property(fc.nat(100), fc.double({ min: 0, max: 0.999, noNaN: true }), (round, random) => {
      const ms = backoffMs(round, random);
      expect(ms).toBeGreaterThanOrEqual(50);
      expect(ms).toBeLessThanOrEqual(5_000);
    }),
  );
  expect(backoffMs(0, 0)).toBe(50);
  expect(backoffMs(9, 0.5)).toBe(3_750);
});
