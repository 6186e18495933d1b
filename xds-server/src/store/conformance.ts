import { deepStrictEqual, rejects, strictEqual } from 'node:assert/strict';
import { STORE_LIMITS } from './conformance-limits.ts';
import { conflict, end, entry, sampleRollout, sampleUpgrade, step } from './conformance-samples.ts';
import type { AgentRow, Store } from './store.ts';

export { sampleUpgrade } from './conformance-samples.ts';

/** A store under test. `reopen` gives another instance on the same data, as a restarted controller would have. */
export interface StoreUnderTest {
  readonly open: () => Promise<Store>;
  /** undefined: this store does not outlive its process. */
  readonly reopen?: (() => Promise<Store>) | undefined;
}

export interface ConformanceCase {
  readonly name: string;
  readonly run: (subject: StoreUnderTest) => Promise<void>;
}

/** What every store must do; the caller runs each case with the test runner of its choice. */
export const STORE_CONFORMANCE: readonly ConformanceCase[] = [
  {
    name: 'gives back what was written',
    run: async ({ open }) => {
      const store = await open();
      const state = sampleUpgrade('a', { slot: '1', rollbackOf: 'ü "quoted"\n' });
      const { version } = await store.insertUpgrade(state, [entry('a', 0)]);
      deepStrictEqual(await store.upgrade('a'), { state, version });
      deepStrictEqual(await store.record('a'), [entry('a', 0)]);
      strictEqual(await store.upgrade('b'), undefined);
      deepStrictEqual(await store.record('b'), []);
    },
  },
  {
    name: 'keeps each end of a connection once, by time, and forgets them with their upgrade',
    run: async ({ open }) => {
      const store = await open();
      await store.insertUpgrade(sampleUpgrade('a', { phase: 'Done' }), []);
      deepStrictEqual(await store.ended('a'), { items: [], dropped: 0 });
      await store.appendEnded('a', [end('2', 2_000), end('1', 1_000)], 0);
      await store.appendEnded('a', [end('1', 1_000), end('3', 1_500)], 7);
      deepStrictEqual(await store.ended('a'), {
        items: [end('1', 1_000), end('3', 1_500), end('2', 2_000)],
        dropped: 7,
      });
      // Told again from an older moment.
      await store.appendEnded('a', [], 3);
      deepStrictEqual((await store.ended('a')).dropped, 7);
      await rejects(store.appendEnded('none', [end('1', 1)], 0));
      await store.prune('edge', 0);
      deepStrictEqual(await store.ended('a'), { items: [], dropped: 0 });
    },
  },
  {
    name: 'refuses a second upgrade of the same id and keeps the first',
    run: async ({ open }) => {
      const store = await open();
      await store.insertUpgrade(sampleUpgrade('a'), [entry('a', 0)]);
      await rejects(store.insertUpgrade(sampleUpgrade('a', { reason: 'other' }), [entry('a', 1)]), conflict);
      strictEqual((await store.upgrade('a'))?.state.reason, 'recorded');
      strictEqual((await store.record('a')).length, 1);
    },
  },
  {
    name: 'lets only the writer of the last version write',
    run: async ({ open }) => {
      const store = await open();
      const first = await store.insertUpgrade(sampleUpgrade('a'), []);
      const second = await store.updateUpgrade(sampleUpgrade('a', { phase: 'Preflight' }), first.version, [
        entry('a', 0),
      ]);
      await rejects(
        store.updateUpgrade(sampleUpgrade('a', { phase: 'Failed' }), first.version, [entry('a', 1)]),
        conflict,
      );
      await rejects(store.updateUpgrade(sampleUpgrade('x'), '1', []), conflict);
      const found = await store.upgrade('a');
      strictEqual(found?.state.phase, 'Preflight');
      strictEqual(found?.version, second.version);
      strictEqual((await store.record('a')).length, 1);
    },
  },
  {
    name: 'keeps a record in the order of its numbers, one line a number',
    run: async ({ open }) => {
      const store = await open();
      const { version } = await store.insertUpgrade(sampleUpgrade('a'), [entry('a', 0), entry('a', 1)]);
      await store.updateUpgrade(sampleUpgrade('a'), version, [entry('a', 2)]);
      deepStrictEqual(
        (await store.record('a')).map((one) => one.seq),
        [0, 1, 2],
      );
    },
  },
  {
    name: 'lists the newest first, by proxy and bounded',
    run: async ({ open }) => {
      const store = await open();
      await store.insertUpgrade(sampleUpgrade('a', { createdAt: 1 }), []);
      await store.insertUpgrade(sampleUpgrade('b', { createdAt: 3 }), []);
      await store.insertUpgrade(sampleUpgrade('c', { createdAt: 2, proxy: 'other' }), []);
      const ids = async (filter?: { proxy?: string; limit?: number }) =>
        (await store.upgrades(filter)).map((one) => one.state.id);
      deepStrictEqual(await ids(), ['b', 'c', 'a']);
      deepStrictEqual(await ids({ proxy: 'edge' }), ['b', 'a']);
      deepStrictEqual(await ids({ proxy: 'edge', limit: 1 }), ['b']);
      deepStrictEqual(await ids({ proxy: 'nobody' }), []);
    },
  },
  {
    name: 'prunes ended upgrades only, the oldest, with their records',
    run: async ({ open }) => {
      const store = await open();
      for (const [n, phase] of (['Done', 'Draining', 'Failed', 'RolledBack'] as const).entries()) {
        await store.insertUpgrade(sampleUpgrade(`u${n}`, { phase, createdAt: n }), [entry(`u${n}`, 0)]);
      }
      await store.prune('edge', 1);
      deepStrictEqual(
        (await store.upgrades()).map((one) => one.state.id),
        ['u3', 'u1'],
      );
      deepStrictEqual(await store.record('u0'), []);
      strictEqual((await store.record('u3')).length, 1);
    },
  },
  {
    name: 'remembers the agents, one row a slot',
    run: async ({ open }) => {
      const store = await open();
      const row: AgentRow = {
        proxy: 'edge',
        slot: '1',
        agentVersion: '1',
        versions: ['1.40.0'],
        epochs: [],
        seenAt: 1,
      };
      await store.putAgent(row);
      await store.putAgent({ ...row, seenAt: 2 });
      await store.putAgent({ ...row, slot: '2' });
      const rows = [...(await store.agents())].sort((a, b) => a.slot.localeCompare(b.slot));
      deepStrictEqual(rows, [
        { ...row, seenAt: 2 },
        { ...row, slot: '2' },
      ]);
    },
  },
  {
    name: 'still has everything after it was opened again',
    run: async ({ open, reopen }) => {
      if (reopen === undefined) return;
      const store = await open();
      const { version } = await store.insertUpgrade(sampleUpgrade('a'), [entry('a', 0)]);
      await store.close();
      const again = await reopen();
      deepStrictEqual(await again.upgrade('a'), { state: sampleUpgrade('a'), version });
      await again.updateUpgrade(sampleUpgrade('a', { phase: 'Done' }), version, [entry('a', 1)]);
      strictEqual((await again.record('a')).length, 2);
      await again.ping();
    },
  },
  {
    name: 'gives out no object that a caller could change behind its back',
    run: async ({ open }) => {
      const store = await open();
      await store.insertUpgrade(sampleUpgrade('a'), []);
      const found = (await store.upgrade('a')) as { state: { phase: string } };
      found.state.phase = 'Done';
      strictEqual((await store.upgrade('a'))?.state.phase, 'Idle');
    },
  },
  {
    name: 'keeps rollouts, newest first, and lets only the writer of the last version write',
    run: async ({ open, reopen }) => {
      const store = await open();
      const { version } = await store.insertRollout(sampleRollout('a'), [step('a', 0)]);
      await store.insertRollout(sampleRollout('b', { createdAt: 2_000 }), []);
      const other = { code: 'ROLLOUT_CONFLICT' };
      await rejects(store.insertRollout(sampleRollout('a'), [step('a', 1)]), other);
      const next = await store.updateRollout(sampleRollout('a', { phase: 'Paused' }), version, [step('a', 1)]);
      await rejects(store.updateRollout(sampleRollout('a', { phase: 'Done' }), version, [step('a', 2)]), other);
      await rejects(store.updateRollout(sampleRollout('x'), '1', []), other);
      if (reopen !== undefined) await store.close();
      const again = (await reopen?.()) ?? store;
      deepStrictEqual(await again.rollout('a'), {
        state: sampleRollout('a', { phase: 'Paused' }),
        version: next.version,
      });
      deepStrictEqual(
        (await again.rollouts()).map((one) => one.state.id),
        ['b', 'a'],
      );
      deepStrictEqual(await again.rolloutRecord('a'), [step('a', 0), step('a', 1)]);
      strictEqual(await again.rollout('x'), undefined);
    },
  },
  {
    name: 'prunes ended rollouts only, the oldest, with their records',
    run: async ({ open }) => {
      const store = await open();
      for (const [n, phase] of (['Done', 'Paused', 'Failed', 'RolledBack'] as const).entries()) {
        await store.insertRollout(sampleRollout(`r${n}`, { phase, createdAt: n }), [step(`r${n}`, 0)]);
      }
      await store.pruneRollouts(1);
      deepStrictEqual(
        (await store.rollouts()).map((one) => one.state.id),
        ['r3', 'r1'],
      );
      deepStrictEqual(await store.rolloutRecord('r0'), []);
      strictEqual((await store.rolloutRecord('r3')).length, 1);
    },
  },
  ...STORE_LIMITS,
];
