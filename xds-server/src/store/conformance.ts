import { deepStrictEqual, rejects, strictEqual } from 'node:assert/strict';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  type EndedConnection,
  type Phase,
  type RecordEntry,
  type RolloutEntry,
} from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import { newRollout, type RolloutState } from '../rollout/state.ts';
import type { AgentRow, Store } from './store.ts';

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

export function sampleUpgrade(id: string, more: Partial<UpgradeState> = {}): UpgradeState {
  return {
    id,
    proxy: 'edge',
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    createdAt: 1_000,
    phase: 'Idle',
    phaseSince: 1_000,
    reason: 'recorded',
    attempts: 0,
    ...more,
  };
}

function entry(upgradeId: string, seq: number, phase: Phase = 'Idle'): RecordEntry {
  return { upgradeId, proxy: 'edge', seq, at: 1_000 + seq, phase, event: 'phase', text: `entry ${seq}` };
}

function end(id: string, at: number): EndedConnection {
  return {
    connection: { epoch: 1, id, peer: 'p:1', local: 'l:1', listener: 'in', protocol: 'http2', openedAt: 0 },
    at,
    how: 'left',
    lever: 'age-pressure',
    reason: 'told-to-leave',
    rule: 'default',
  };
}

function sampleRollout(id: string, more: Partial<RolloutState> = {}): RolloutState {
  const spec = {
    selector: { proxies: ['edge-*'], labels: {} },
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    strategy: DEFAULT_STRATEGY,
    analysis: DEFAULT_ANALYSIS,
  };
  return { ...newRollout(id, spec, 1_000), ...more };
}

function step(rolloutId: string, seq: number): RolloutEntry {
  return { rolloutId, seq, at: 1_000 + seq, phase: 'Progressing', event: 'started', text: `step ${seq}`, member: 'a' };
}

const conflict = { code: 'UPGRADE_CONFLICT' };

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
