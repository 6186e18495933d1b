import { deepStrictEqual, strictEqual } from 'node:assert/strict';
import { DEFAULT_ANALYSIS, DEFAULT_POLICY, DEFAULT_STRATEGY, type EndedConnection, type Phase } from '@sluice/contract';
import fc from 'fast-check';
import { newRollout } from '../rollout/state.ts';
import { type StoreUnderTest, sampleUpgrade } from '../store/conformance.ts';
import { MemoryStore } from '../store/memory.ts';
import type { Store } from '../store/store.ts';

const IDS = ['a', 'B/2', 'c'] as const;
const PROXIES = ['edge', 'Web 1'] as const;
const id = fc.constantFrom(...IDS);
const proxy = fc.constantFrom(...PROXIES);
const phase = fc.constantFrom<Phase>('Idle', 'Draining', 'Done', 'Failed');

/** What callers do with a store, as data. `stale`: by a version that is not the stored one any more. */
const moves = fc.array(
  fc.oneof(
    fc.record({ do: fc.constant('insert' as const), id, proxy, phase }),
    fc.record({ do: fc.constant('update' as const), id, phase, entries: fc.nat(3), stale: fc.boolean() }),
    fc.record({
      do: fc.constant('end' as const),
      id,
      keys: fc.array(fc.nat(9), { minLength: 1, maxLength: 5 }),
      dropped: fc.nat(5),
    }),
    fc.record({ do: fc.constant('prune' as const), proxy, keep: fc.nat(2) }),
    fc.record({ do: fc.constant('agent' as const), proxy, slot: fc.constantFrom('1', '2'), version: fc.nat(3) }),
    fc.record({ do: fc.constant('roll' as const), id }),
    fc.record({ do: fc.constant('move' as const), id, over: fc.boolean(), stale: fc.boolean() }),
    fc.record({ do: fc.constant('pruneRollouts' as const), keep: fc.nat(2) }),
    fc.record({ do: fc.constant('reopen' as const) }),
  ),
  { maxLength: 30 },
);

type Move = typeof moves extends fc.Arbitrary<(infer M)[]> ? M : never;

/** One store and the versions that its callers know. */
interface Side {
  store: Store;
  readonly versions: Map<string, string[]>;
  readonly seq: Map<string, number>;
}

/** Whatever callers do, the store under test answers as MemoryStore, which is short enough to be believed. */
export async function checkAgainstModel(subject: () => Promise<StoreUnderTest>, numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(moves, async (list) => {
      const { open, reopen } = await subject();
      const real: Side = { store: await open(), versions: new Map(), seq: new Map() };
      const model: Side = { store: new MemoryStore(), versions: new Map(), seq: new Map() };
      for (const [n, move] of list.entries()) {
        if (move.do === 'reopen') {
          if (reopen === undefined) continue;
          await real.store.close();
          real.store = await reopen();
        } else strictEqual(await carryOut(real, move, n), await carryOut(model, move, n), JSON.stringify(move));
      }
      deepStrictEqual(await all(real.store), await all(model.store));
      await real.store.close();
    }),
    { numRuns, interruptAfterTimeLimit: 90_000, markInterruptAsFailure: false },
  );
}

/** `ok`, or the code of the refusal. */
async function carryOut(side: Side, move: Move, at: number): Promise<string> {
  try {
    await apply(side, move, at);
    return 'ok';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

async function apply({ store, versions, seq }: Side, move: Move, at: number): Promise<void> {
  /** The newest version that was given out, or the first one, or one that never was. */
  const version = (key: string, stale: boolean) => versions.get(key)?.at(stale ? 0 : -1) ?? '7';
  const note = (key: string, { version }: { readonly version: string }) =>
    void versions.set(key, [...(versions.get(key) ?? []), version]);
  const next = (key: string) => {
    const n = seq.get(key) ?? 0;
    seq.set(key, n + 1);
    return n;
  };
  switch (move.do) {
    case 'insert': {
      const made = await store.insertUpgrade(
        sampleUpgrade(move.id, { proxy: move.proxy, phase: move.phase, createdAt: at }),
        [{ upgradeId: move.id, proxy: move.proxy, seq: 0, at, phase: 'Idle', event: 'created', text: '' }],
      );
      versions.delete(`u ${move.id}`);
      note(`u ${move.id}`, made);
      seq.set(`u ${move.id}`, 1);
      return;
    }
    case 'update': {
      const key = `u ${move.id}`;
      const stored = await store.upgrade(move.id);
      const state = { ...(stored?.state ?? sampleUpgrade(move.id)), phase: move.phase, reason: `at ${at}` };
      const first = seq.get(key) ?? 0;
      const entries = Array.from({ length: move.entries }, (_, n) => ({
        upgradeId: move.id,
        proxy: state.proxy,
        seq: first + n,
        at,
        phase: move.phase,
        event: 'phase',
        text: `entry ${first + n}`,
      }));
      note(key, await store.updateUpgrade(state, version(key, move.stale), entries));
      seq.set(key, first + move.entries);
      return;
    }
    case 'end':
      return store.appendEnded(move.id, move.keys.map(ended), move.dropped);
    case 'prune':
      return store.prune(move.proxy, move.keep);
    case 'agent':
      return store.putAgent({
        proxy: move.proxy,
        slot: move.slot,
        agentVersion: String(move.version),
        versions: [],
        epochs: [],
        seenAt: 1,
      });
    case 'roll': {
      const made = await store.insertRollout(newRollout(move.id, SPEC, at), []);
      versions.delete(`r ${move.id}`);
      note(`r ${move.id}`, made);
      seq.set(`r ${move.id}`, 0);
      return;
    }
    case 'move': {
      const key = `r ${move.id}`;
      const stored = await store.rollout(move.id);
      const phase = move.over ? ('Done' as const) : ('Paused' as const);
      const state = { ...(stored?.state ?? newRollout(move.id, SPEC, at)), phase };
      const expected = version(key, move.stale);
      const text = { rolloutId: move.id, seq: seq.get(key) ?? 0, at, phase, event: 'phase', text: `at ${at}` };
      note(key, await store.updateRollout(state, expected, [text]));
      next(key);
      return;
    }
    case 'pruneRollouts':
      return store.pruneRollouts(move.keep);
    case 'reopen':
      return;
  }
}

async function all(store: Store): Promise<unknown> {
  const rows = [...(await store.agents())].sort((a, b) => (`${a.proxy} ${a.slot}` < `${b.proxy} ${b.slot}` ? -1 : 1));
  return {
    upgrades: (await store.upgrades()).map(({ state }) => state),
    byProxy: await Promise.all(
      PROXIES.map(async (one) => (await store.upgrades({ proxy: one, limit: 1 })).map(({ state }) => state.id)),
    ),
    rollouts: (await store.rollouts()).map(({ state }) => state),
    agents: rows,
    each: await Promise.all(
      IDS.map(async (one) => [await store.record(one), await store.ended(one), await store.rolloutRecord(one)]),
    ),
  };
}

const SPEC = {
  selector: { proxies: ['*'], labels: {} },
  target: { to: '1.40.0' },
  policy: DEFAULT_POLICY,
  strategy: DEFAULT_STRATEGY,
  analysis: DEFAULT_ANALYSIS,
};

function ended(n: number): EndedConnection {
  return {
    connection: {
      epoch: n % 2,
      id: String(n),
      peer: 'p:1',
      local: 'l:1',
      listener: 'in',
      protocol: 'http2',
      openedAt: 0,
    },
    at: n * 10,
    how: 'left',
    lever: 'age-pressure',
    reason: 'told-to-leave',
    rule: 'default',
  };
}
