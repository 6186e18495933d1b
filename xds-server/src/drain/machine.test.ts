import { DEFAULT_POLICY, type Phase, type Verdict } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { epochStatus, verdict } from '../testing/fake-agent.ts';
import { around, FIRST, fresh, hello, judged, lists, passed, reset, run, serving, T0, turn } from '../testing/story.ts';
import { nextWake, step } from './machine.ts';
import { buildOrder } from './orders.ts';
import { complete, DEFAULT_BOUNDS, type UpgradeEvent } from './state.ts';

describe('a good upgrade', () => {
  it('goes through its phases and gives each order once', () => {
    const { state, types } = run([turn, passed, serving, judged(false), judged(true, T0 + 6_000), reset]);
    expect(state).toMatchObject({ phase: 'Done', epoch: 1, oldEpoch: 0, connections: { old: 2, drained: 2 } });
    expect(types).toEqual(['sendPreflight', 'sendStart', 'pushOrder', 'authorizeReset', 'withdrawOrder']);
  });

  it('takes the agent’s own order, given while the controller was away, as applied', () => {
    const own: UpgradeEvent = { type: 'orderApplied', epoch: 0, version: 0, via: 'local' };
    expect(run([turn, passed, serving, own]).state).toMatchObject({ orderVia: 'local' });
  });
});

describe('failure exits', () => {
  it.each<[string, UpgradeEvent[], Phase, RegExp]>([
    ['a refused preflight', [turn, { ...passed, ok: false } as UpgradeEvent], 'Failed', /refused/],
    ['an abort before its turn', [{ type: 'abort', by: 'jo' }], 'Failed', /aborted by jo/],
    ['an abort in Preflight', [turn, { type: 'abort', by: 'jo' }], 'Failed', /aborted by jo/],
    [
      'a new epoch that died',
      [turn, passed, { type: 'failed', code: 'SLUICE_EPOCH_DIED', message: 'it died', rolledBack: false }],
      'Failed',
      /it died/,
    ],
    [
      'the old version serving again',
      [turn, passed, { type: 'failed', code: 'SLUICE_EPOCH_DIED', message: 'back', rolledBack: true }],
      'RolledBack',
      /back/,
    ],
  ])('%s', (_, events, phase, reason) => {
    const { state } = run(events);
    expect(state.phase).toBe(phase);
    expect(state.reason).toMatch(reason);
  });

  it('asks the agent before it calls an aborted start failed, for it may serve already', () => {
    const asked = run([turn, passed, { type: 'abort', by: 'jo' }]);
    expect(asked.state.phase).toBe('Starting');
    expect(asked.types).toContain('sendAbort');
    expect(run([serving], asked.state).state.phase).toBe('Draining');
    const refused: UpgradeEvent = { type: 'failed', code: 'SLUICE_ABORTED', message: 'given up', rolledBack: false };
    expect(run([refused], asked.state).state.phase).toBe('Failed');
  });

  it('bounds Preflight, and Starting only while its agent is there', () => {
    const preflight = run([turn]).state;
    const late = around(preflight.phaseSince + DEFAULT_BOUNDS.preflight);
    expect(step(preflight, { type: 'tick' }, late).state.phase).toBe('Failed');
    const starting = run([turn, passed]).state;
    const end = starting.phaseSince + DEFAULT_BOUNDS.starting;
    expect(step(starting, { type: 'tick' }, around(end, [])).state).toBe(starting);
    expect(nextWake(starting, new Set())).toBeUndefined();
    const asked = step(starting, { type: 'tick' }, around(end)).state;
    expect(asked).toMatchObject({ phase: 'Starting', abort: { code: 'EPOCH_TIMEOUT' } });
    const given = step(asked, { type: 'tick' }, around(end + DEFAULT_BOUNDS.abort)).state;
    expect(given).toMatchObject({ phase: 'Failed', failure: { code: 'SLUICE_EPOCH_TIMEOUT' } });
  });

  it('still ends what a given up upgrade left draining', () => {
    const failed = fresh({ phase: 'Failed', slot: '1' });
    const { state, types } = run([serving, judged(true), reset], failed);
    expect(state).toMatchObject({ phase: 'Failed', resetAt: T0 + 9_000 });
    expect(types).toEqual(['pushOrder', 'authorizeReset', 'withdrawOrder']);
  });
});

describe('what a rolled back upgrade left draining', () => {
  it('is ended by its agent’s next safe word, also after one that was taken back', () => {
    const back: UpgradeEvent = { type: 'failed', code: 'SLUICE_EPOCH_DIED', message: 'back', rolledBack: true };
    const words = [judged(true), judged(false, T0 + 6_000), judged(true, T0 + 7_000)];
    const { state, types } = run([turn, passed, serving, back, ...words]);
    expect(state).toMatchObject({ phase: 'RolledBack', oldEpoch: 0 });
    expect(types.filter((type) => type === 'authorizeReset')).toHaveLength(2);
  });
});

describe('the deadline', () => {
  const atDeadline = (how: 'wait' | 'ask' | 'reset') => {
    const policy = { ...DEFAULT_POLICY, maxDrainMs: 10_000, atDeadline: how };
    const draining = run([turn, passed, serving, judged(false)], fresh({ policy })).state;
    return step(draining, { type: 'tick' }, around((draining.order?.issuedAt ?? 0) + 10_000));
  };
  it.each(['wait', 'ask'] as const)('%s: says so once and stays', (how) => {
    const result = atDeadline(how);
    expect(result.state.phase).toBe('Draining');
    expect(result.entries.map((entry) => entry.event)).toEqual(['deadline']);
    const again = step(result.state, { type: 'tick' }, around(T0 + 900_000));
    expect(again.entries).toEqual([]);
  });
  it('reset: waits for the agent’s verdict, which gives up what no rule protects any more', () => {
    const result = atDeadline('reset');
    expect(result.state.phase).toBe('Draining');
    expect(result.commands.map((one) => one.type)).not.toContain('authorizeReset');
    const given = step(result.state, judged(true, T0 + 20_000), around(T0 + 20_000));
    expect(given.state.phase).toBe('Resetting');
    expect(given.commands.at(-1)).toMatchObject({ type: 'authorizeReset' });
    expect(given.commands.at(-1)).not.toHaveProperty('override');
  });
  it('is none where policy has no limit by time', () => {
    const policy = { ...DEFAULT_POLICY, maxDrainMs: 0 };
    const draining = run([turn, passed, serving, judged(false)], fresh({ policy })).state;
    const applied = { ...draining, orderAppliedAt: T0 };
    expect(nextWake(applied, new Set(['1']))).toBeUndefined();
  });
});

describe('the memory limit', () => {
  const over = (more: Partial<Verdict>): UpgradeEvent[] => [
    { type: 'verdict', epoch: 0, verdict: verdict(false, { at: T0 + 6_000, ...more }) },
    { type: 'verdict', epoch: 0, verdict: verdict(false, { at: T0 + 7_000, ...more }) },
  ];
  const told = (atDeadline: 'wait' | 'ask', events: readonly UpgradeEvent[]) => {
    const policy = { ...DEFAULT_POLICY, maxDrainMs: 10_000, atDeadline, memory: { budgetMiB: 64 } };
    let state = run([turn, passed, serving, judged(false)], fresh({ policy })).state;
    const texts: string[] = [];
    for (const event of events) {
      const result = step(state, event, around(T0 + 20_000));
      state = result.state;
      texts.push(...result.entries.filter((one) => one.event === 'deadline').map(({ text }) => text));
      expect(result.commands.map(({ type }) => type)).not.toContain('authorizeReset');
    }
    return { state, texts };
  };
  const time = { limit: 'time', pastDeadline: true } as const;
  const memory = { limit: 'memory', pastDeadline: true, overBudget: true } as const;
  const BUDGET = 'the lingering epochs hold more than the 64 MiB that policy allows';

  it.each([
    ['wait', 'policy waits on'],
    ['ask', 'an operator has to decide'],
  ] as const)('%s: says so once, stays, and says the deadline too when it comes', (how, says) => {
    const { state, texts } = told(how, [...over(memory), { type: 'tick' }, { type: 'tick' }]);
    expect(texts).toEqual([`${BUDGET}: ${says}`, `the maximum drain time of 10 s is over: ${says}`]);
    expect(state).toMatchObject({ phase: 'Draining', limitsRecorded: ['memory', 'time'] });
  });

  it('is said after the deadline too, whose verdict has the deadline as its limit', () => {
    const { texts } = told('wait', [{ type: 'tick' }, ...over({ ...time, overBudget: true })]);
    expect(texts).toEqual(['the maximum drain time of 10 s is over: policy waits on', `${BUDGET}: policy waits on`]);
  });

  it('of a state that an older controller stored nothing is said twice', () => {
    const stored = { ...fresh(), deadlineRecorded: true };
    expect(complete(stored)).toEqual({ ...fresh(), limitsRecorded: ['time', 'memory'] });
  });
});

describe('an override at the agent’s own socket', () => {
  const draining = run([turn, passed, serving, judged(false)]).state;
  const override = { by: 'kim', reason: 'the disk is full', at: T0 + 8_900 };
  const done: UpgradeEvent = { ...reset, drained: 1, cut: [{ id: '7' } as never], override } as UpgradeEvent;

  it('stands in the record with its name, and not as the agent’s own deed', () => {
    const over = step(draining, done, around());
    expect(over.state).toMatchObject({ phase: 'Done', override });
    const texts = over.entries.map(({ event, text }) => `${event}: ${text}`);
    expect(texts[0]).toBe("override: kim reset epoch 0 at the agent's own socket: the disk is full");
    expect(texts[1]).not.toContain('by itself');
  });

  it('is the one that ended the epoch, whatever the controller was asked meanwhile; its own come back is no news', () => {
    const asked = run([{ type: 'override', by: 'jo', reason: 'must' }], draining).state;
    expect(step(asked, done, around()).state.override).toEqual(override);
    const own = { ...done, override: { by: 'jo', reason: 'must', at: T0 + 8_900 } } as UpgradeEvent;
    const over = step(asked, own, around());
    expect(over.state.override).toEqual(asked.override);
    expect(over.entries.map(({ event }) => event)).not.toContain('override');
  });

  it('why an agent ended it by itself stays with the counts', () => {
    const { state } = run([{ ...reset, why: 'not drained within 5000 ms' } as UpgradeEvent], draining);
    expect(state.connections).toMatchObject({ why: 'not drained within 5000 ms' });
    expect(state.override).toBeUndefined();
  });
});

describe('orders', () => {
  const draining = run([turn, passed, serving, judged(false)]).state;
  it('grow from one upgrade of an epoch to the next, whatever its first agent was given', () => {
    expect(draining.order?.version).toBeGreaterThanOrEqual(T0);
    expect(buildOrder(draining, 0, T0, { known: T0 + 500 }).version).toBe(T0 + 501);
  });
  it('are applied where the agent says so with its hello: that it told it nobody may have heard', () => {
    const version = draining.order?.version as number;
    const old = (orderVersion: number) => epochStatus(0, 'draining', { upgradeId: 'u1', orderVersion });
    const older = step(draining, hello([old(version - 1)]), around()).state;
    expect(older.orderAppliedAt).toBeUndefined();
    expect(step(draining, hello([old(version)]), around()).state.orderAppliedAt).toBe(around().now);
  });
  it('carry the share of the fleet’s rate from the first one on', () => {
    const starting = run([turn, passed]).state;
    const { commands } = step(starting, serving, { ...around(), share: () => 7 });
    expect(commands).toMatchObject([{ type: 'pushOrder', order: { pace: { perSecond: 7 } } }]);
  });
  it('carry another share of the fleet’s rate, newer and once', () => {
    const first = step(draining, { type: 'share', perSecond: 5 }, around());
    expect(first.commands).toMatchObject([{ type: 'pushOrder', order: { pace: { perSecond: 5 } } }]);
    expect(first.state.order?.version).toBeGreaterThan(draining.order?.version ?? 0);
    expect(step(first.state, { type: 'share', perSecond: 5 }, around()).commands).toEqual([]);
  });
  it('are estimated once, and the record compares', () => {
    const estimate = { at: T0, endsAt: T0 + 4_000, endsLate: T0 + 6_000, observed: 3 };
    const told: UpgradeEvent = { type: 'orderApplied', epoch: 0, version: FIRST, via: 'xds' };
    const word: UpgradeEvent = { type: 'verdict', epoch: 0, verdict: verdict(false, { at: T0 + 4_000, estimate }) };
    const estimated = step(
      step(draining, told, around()).state,
      { ...word, verdict: { ...word.verdict, at: T0 + 6_000 } },
      around(),
    );
    expect(estimated.entries.map((one) => one.text)).toEqual([
      'an end in 4.0 s as likely as not, in 6.0 s nine times of ten, by 3 ends seen before',
    ]);
    const over = step(estimated.state, reset, around());
    expect(over.entries.find((one) => one.event === 'estimate-outcome')?.text).toContain('later than that');
  });
});

describe('after a hello in Starting', () => {
  const starting = run([turn, passed]).state;
  const list = lists('u1');
  it('finds the new epoch serving', () => {
    expect(run([hello(list.after)], starting).state).toMatchObject({ phase: 'Draining', epoch: 1, oldEpoch: 0 });
  });
  it('waits for one that is starting', () => {
    expect(run([hello(list.during)], starting)).toMatchObject({ state: { phase: 'Starting' }, types: [] });
  });
  it('orders it again when the agent knows nothing of it, or not what it replaced', () => {
    expect(run([hello(list.before)], starting).types).toEqual(['sendStart']);
    expect(run([hello(list.over)], starting).types).toEqual(['sendStart']);
  });
  it('gives up what was aborted meanwhile', () => {
    const aborted = run([{ type: 'abort', by: 'jo' }], starting).state;
    expect(run([hello(list.before)], aborted).state.phase).toBe('Failed');
  });
});

describe('an old epoch that ended unseen', () => {
  const draining = run([turn, passed, serving, judged(false)]).state;
  it('counts what was protected last as cut, never as drained', () => {
    const { state } = run([hello(lists('u1').over)], draining);
    expect(state).toMatchObject({ phase: 'Done', connections: { old: 1, drained: 0, cut: [{ id: '7' }] } });
  });
  it('counts so those too that the bounded list did not name', () => {
    const many: UpgradeEvent = {
      type: 'verdict',
      epoch: 0,
      verdict: verdict(false, { at: T0 + 9_000, total: 900, protected: 700 }),
    };
    expect(run([many, hello(lists('u1').over)], draining).state.connections).toMatchObject({ old: 900, drained: 200 });
  });
  it('is seen from any list of its own agent, and not from another slot’s', () => {
    const other: UpgradeEvent = { type: 'epochs', slot: '2', epochs: [], hello: true };
    expect(run([other], draining).state.phase).toBe('Draining');
    const list: UpgradeEvent = { type: 'epochs', slot: '1', epochs: lists('u1').over, hello: false };
    expect(run([list], draining).state.phase).toBe('Done');
    const crashed = [epochStatus(0, 'crashed'), epochStatus(1, 'serving')];
    expect(run([{ ...list, epochs: crashed } as UpgradeEvent], draining).state.phase).toBe('Done');
  });
  it('leaves the agent’s own account in force when it came first', () => {
    const list: UpgradeEvent = { type: 'epochs', slot: '1', epochs: lists('u1').over, hello: false };
    expect(run([reset, list], draining).state.connections).toMatchObject({ old: 2, drained: 2, cut: [] });
  });
});
