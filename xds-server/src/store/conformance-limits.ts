import { deepStrictEqual, strictEqual } from 'node:assert/strict';
import type { ConformanceCase } from './conformance.ts';
import { conflict, end, entry, sampleRollout, sampleUpgrade, step } from './conformance-samples.ts';

/** Several writers at once, ids of any form, and what is large. */
export const STORE_LIMITS: readonly ConformanceCase[] = [
  {
    name: 'of several writers with one version one wins',
    run: async ({ open, reopen }) => {
      const store = await open();
      const other = (await reopen?.()) ?? store;
      const { version } = await store.insertUpgrade(sampleUpgrade('a'), []);
      const rollout = await store.insertRollout(sampleRollout('r'), []);
      const tries = [0, 1, 2, 3, 4, 5].map((n) => {
        const reason = `writer ${n}`;
        return (n % 2 === 0 ? store : other).updateUpgrade(sampleUpgrade('a', { reason }), version, [entry('a', n)]);
      });
      const moves = () =>
        [0, 1, 2, 3].map((n) => {
          const reason = `writer ${n}`;
          return (n % 2 === 0 ? store : other).updateRollout(sampleRollout('r', { reason }), rollout.version, [
            step('r', n),
          ]);
        });
      await oneWins(tries, conflict);
      await oneWins(moves(), { code: 'ROLLOUT_CONFLICT' });
      const [written] = await store.record('a');
      strictEqual((await store.record('a')).length, 1);
      strictEqual((await other.upgrade('a'))?.state.reason, `writer ${written?.seq}`);
      strictEqual((await other.rolloutRecord('r')).length, 1);
      await oneWins(
        [store, other, store].map((one) => one.insertUpgrade(sampleUpgrade('b'), [])),
        conflict,
      );
    },
  },
  {
    name: 'takes ids and proxies of any form, and mixes none of them up',
    run: async ({ open }) => {
      const store = await open();
      const odd = [
        'a',
        'A',
        'a.',
        '.a',
        'a/b',
        'a b',
        'ä',
        'x-61-x',
        '-',
        'a_b',
        'a'.repeat(250),
        'a'.repeat(251),
        'b'.repeat(400),
      ];
      for (const [n, id] of odd.entries()) {
        await store.insertUpgrade(sampleUpgrade(id, { proxy: id, createdAt: n }), [entry(id, 0)]);
        await store.putAgent({ proxy: id, slot: '1', agentVersion: '1', versions: [], epochs: [], seenAt: n });
      }
      for (const id of odd) {
        strictEqual((await store.upgrade(id))?.state.proxy, id);
        deepStrictEqual(await store.record(id), [entry(id, 0)]);
        deepStrictEqual(
          (await store.upgrades({ proxy: id })).map((one) => one.state.id),
          [id],
        );
      }
      const rows = [...(await store.agents())].sort((a, b) => a.seenAt - b.seenAt);
      deepStrictEqual(
        rows.map(({ proxy }) => proxy),
        odd,
      );
    },
  },
  {
    name: 'keeps what is large: connections that were cut, a long record, a fleet of thousands',
    run: async ({ open, reopen }) => {
      const store = await open();
      const cut = Array.from({ length: 3_000 }, (_, n) => ({ ...end(String(n), n).connection, rule: `rule ${n % 7}` }));
      const connections = { old: 9_000, drained: 6_000, cut };
      let { version } = await store.insertUpgrade(sampleUpgrade('a'), []);
      let { version: moved } = await store.insertRollout(sampleRollout('r'), []);
      const members = Array.from({ length: 2_000 }, (_, n) => {
        const name = `shop-7d9c6bf9f4-${n.toString(36)}.shop-${n % 9}`;
        return {
          name,
          zone: `z${n % 3}`,
          state: 'waiting' as const,
          since: n,
          reason: '',
          failures: 0,
          crashes: 0,
          cut: 0,
        };
      });
      for (let n = 0; n < 12; n++) {
        const entries = Array.from({ length: 100 }, (_, k) => ({
          ...entry('a', n * 100 + k),
          text: `${n} ${k} `.repeat(40),
        }));
        ({ version } = await store.updateUpgrade(sampleUpgrade('a', { connections, attempts: n }), version, entries));
        const steps = Array.from({ length: 100 }, (_, k) => ({
          ...step('r', n * 100 + k),
          text: `${n} ${k} `.repeat(40),
        }));
        ({ version: moved } = await store.updateRollout(sampleRollout('r', { members, stage: n }), moved, steps));
      }
      if (reopen !== undefined) await store.close();
      const again = (await reopen?.()) ?? store;
      deepStrictEqual((await again.upgrade('a'))?.state, sampleUpgrade('a', { connections, attempts: 11 }));
      deepStrictEqual((await again.rollout('r'))?.state, sampleRollout('r', { members, stage: 11 }));
      for (const record of [await again.record('a'), await again.rolloutRecord('r')]) {
        deepStrictEqual(
          record.map(({ seq }) => seq),
          Array.from({ length: 1_200 }, (_, n) => n),
        );
        strictEqual(record[1_105]?.text, '11 5 '.repeat(40));
      }
    },
  },
  {
    name: 'keeps ends that are told by several at once, thousands of them',
    run: async ({ open, reopen }) => {
      const store = await open();
      const other = (await reopen?.()) ?? store;
      await store.insertUpgrade(sampleUpgrade('a'), []);
      const batch = (n: number) => Array.from({ length: 400 }, (_, k) => end(String(n * 300 + k), n * 300 + k));
      await Promise.all([0, 1, 2, 3].map((n) => (n === 2 ? other : store).appendEnded('a', batch(n), n)));
      const { items, dropped } = await other.ended('a');
      deepStrictEqual(
        items.map(({ connection }) => connection.id),
        Array.from({ length: 1_300 }, (_, n) => String(n)),
      );
      strictEqual(dropped, 3);
    },
  },
];

async function oneWins(tries: readonly Promise<unknown>[], refusal: { readonly code: string }): Promise<void> {
  const outcomes = await Promise.allSettled(tries);
  strictEqual(outcomes.filter(({ status }) => status === 'fulfilled').length, 1);
  for (const one of outcomes) if (one.status === 'rejected') strictEqual(one.reason.code, refusal.code);
}
