import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Connection, PROTOCOLS, type Protocol } from './connections.ts';
import { FRESH_MS } from './judge.ts';
import { DEFAULT_POLICY, type DrainPolicy, type PolicyRule } from './policy.ts';
import type { Witness } from './verdict.ts';
import {
  allHeld,
  closableIdle,
  computeVerdict,
  nextChangeAt,
  type VerdictInput,
  wouldBeCut,
} from './verdict-compute.ts';

const START = 1_000_000;
const GRACE = DEFAULT_POLICY.http1.silentIdleGraceMs;

function connection(id: string, protocol: Protocol, more: Partial<Connection> = {}): Connection {
  return { epoch: 3, id, peer: '10.0.0.1:1', local: 'l:1', listener: 'a', protocol, openedAt: START - 5_000, ...more };
}

function input(
  connections: readonly Connection[],
  policy: Partial<DrainPolicy>,
  more: Partial<VerdictInput> = {},
): VerdictInput {
  const now = more.now ?? START + 1_000;
  const witness = (name: Witness['name']): Witness => ({ name, open: connections.length, at: now });
  return {
    now,
    policy: { ...DEFAULT_POLICY, ...policy },
    drainStartedAt: START,
    orderAppliedAt: START + 100,
    connections,
    witnesses: [witness('filter'), witness('admin'), witness('kernel')],
    unknownInFlight: 0,
    staleAfterMs: 3_000,
    ...more,
  };
}

const rule = (more: Partial<PolicyRule>): PolicyRule => ({ name: 'r', match: {}, ...more });

describe('rules in the verdict', () => {
  it('say which one holds a connection', () => {
    const rules = [rule({ name: 'sockets', match: { protocols: ['upgrade'] } })];
    const held = allHeld(input([connection('1', 'upgrade'), connection('2', 'tcp')], { rules }));
    expect(held.map((one) => one.rule)).toEqual(['sockets', 'default']);
  });

  it('give up what they do not protect, at once or after a time', () => {
    const busy = [connection('1', 'http2', { inFlight: 3 })];
    const never = computeVerdict(input(busy, { rules: [rule({ protect: false })] }));
    expect(never).toMatchObject({ safe: true, protected: 0, holding: 1 });
    expect(never.held[0]).toMatchObject({ released: 'policy', reason: 'streams-finishing', holds: true });
    expect(never.summary).toContain('1 that hold a request or a session will be cut');

    const soon = { rules: [rule({ protectMs: 5_000 })] };
    expect(computeVerdict(input(busy, soon)).safe).toBe(false);
    expect(nextChangeAt(input(busy, soon, { now: START + 4_000 }))).toBe(START + 5_000);
    const over = computeVerdict(input(busy, soon, { now: START + 5_000 }));
    expect(over.held[0]).toMatchObject({ protected: false, released: 'protection-over' });
  });

  it('give nothing up on the word of a filter that is not heard', () => {
    const now = START + 50_000;
    const silent: Witness[] = [
      { name: 'filter', open: 1, at: now - 9_000 },
      { name: 'kernel', open: 1, at: now },
    ];
    const given = input([connection('1', 'tcp')], { rules: [rule({ protect: false })] }, { now, witnesses: silent });
    expect(computeVerdict(given).safe).toBe(false);
  });

  it('leave alone: no grace runs on one that is not told', () => {
    const idle = [connection('1', 'http1', { inFlight: 0, lastActivityAt: START })];
    const late = { now: START + 10 * GRACE };
    const told = input(idle, { maxDrainMs: 0 }, late);
    expect(closableIdle(told)).toEqual(['1']);
    const alone = input(idle, { maxDrainMs: 0, rules: [rule({ nudge: false })] }, late);
    expect(closableIdle(alone)).toEqual([]);
    expect(computeVerdict(alone).held[0]).toMatchObject({ protected: true, reason: 'not-told', holds: false });
  });

  it('have graces of their own', () => {
    const idle = [connection('1', 'http1', { inFlight: 0 })];
    const short = { rules: [rule({ silentIdleGraceMs: 500 })] };
    expect(closableIdle(input(idle, short))).toEqual(['1']);
  });
});

describe('turns', () => {
  it('a grace begins with the turn, and before it nothing is closed', () => {
    const idle = connection('1', 'http1', { inFlight: 0 });
    const late = { now: START + 2 * GRACE, paced: true };
    expect(computeVerdict(input([idle], {}, late)).held[0]).toMatchObject({
      protected: true,
      reason: 'waits-its-turn',
    });
    expect(closableIdle(input([idle], {}, late))).toEqual([]);
    const told = { ...idle, toldAt: START + GRACE };
    expect(computeVerdict(input([told], {}, { ...late, now: START + 2 * GRACE - 1 })).safe).toBe(false);
    expect(closableIdle(input([told], {}, late))).toEqual(['1']);
  });
});

describe('young ones', () => {
  it('have their grace from when they can be told: no sooner than two seconds old', () => {
    const young = connection('1', 'unknown', { openedAt: START - 100 });
    const short = { http1: { silentIdleGraceMs: 500 } };
    const told = START - 100 + FRESH_MS;
    expect(closableIdle(input([young], short, { now: told + 499 }))).toEqual([]);
    expect(closableIdle(input([young], short, { now: told + 500 }))).toEqual(['1']);
  });
});

describe('limits', () => {
  const sessions = [connection('1', 'upgrade'), connection('2', 'tcp', { listener: 'bank' })];
  const late = { now: START + 60_000 };

  it('reset: gives up all that no rule says to wait for', () => {
    const policy = { maxDrainMs: 60_000, atDeadline: 'reset' as const };
    const verdict = computeVerdict(input(sessions, policy, late));
    expect(verdict).toMatchObject({ safe: true, limit: 'time', holding: 2 });
    expect(verdict.held.map((one) => one.released)).toEqual(['deadline', 'deadline']);
    const rules = [rule({ name: 'bank', match: { listeners: ['bank'] }, atDeadline: 'wait' })];
    const kept = computeVerdict(input(sessions, { ...policy, rules }, late));
    expect(kept).toMatchObject({ safe: false, protected: 1 });
  });

  it('a rule may be the only one that is given up', () => {
    const rules = [rule({ name: 'bank', match: { listeners: ['bank'] }, atDeadline: 'reset' })];
    const verdict = computeVerdict(input(sessions, { maxDrainMs: 60_000, rules }, late));
    expect(verdict.held.find((one) => !one.protected)).toMatchObject({ rule: 'bank', released: 'deadline' });
    expect(verdict.safe).toBe(false);
  });

  it('memory is a limit like time, and 0 ms is none', () => {
    const policy = { maxDrainMs: 0, atDeadline: 'reset' as const };
    expect(computeVerdict(input(sessions, policy, { now: START + 1e9 }))).toMatchObject({ safe: false });
    const over = computeVerdict(input(sessions, policy, { overBudget: true }));
    expect(over).toMatchObject({ safe: true, limit: 'memory', pastDeadline: true });
    expect(over.held[0]?.released).toBe('memory');
    const both = computeVerdict(input(sessions, { ...policy, maxDrainMs: 60_000 }, { ...late, overBudget: true }));
    expect(both).toMatchObject({ limit: 'time', overBudget: true });
  });

  it('past it the unseen are given up too, but not where a rule may protect them', () => {
    const witnesses: Witness[] = [{ name: 'kernel', open: 1, at: START + 60_000 }];
    const policy = { maxDrainMs: 60_000, atDeadline: 'reset' as const };
    expect(computeVerdict(input([], policy, { ...late, witnesses })).safe).toBe(true);
    const rules = [rule({ match: { peers: ['10.0.0.0/8'] }, atDeadline: 'wait' })];
    expect(computeVerdict(input([], { ...policy, rules }, { ...late, witnesses })).safe).toBe(false);
  });

  it('names what would be cut, in the order in which policy gives it up', () => {
    const rules = [
      rule({ name: 'last', match: { listeners: ['bank'] }, cutOrder: 900 }),
      rule({ name: 'first', match: { protocols: ['http1'] }, cutOrder: 1 }),
    ];
    const all = [...sessions, connection('3', 'http1', { inFlight: 1 }), connection('4', 'http1', { inFlight: 0 })];
    expect(wouldBeCut(input(all, { rules })).map((one) => one.connection.id)).toEqual(['3', '1', '2']);
  });
});

it('whatever the rules: safe means that nothing protected is left, and what is cut was given up by name', () => {
  const anyRule = fc.record({
    name: fc.constant('r'),
    match: fc.constantFrom({}, { protocols: ['http1' as const] }, { listeners: ['b*'] }),
    nudge: fc.option(fc.boolean(), { nil: undefined }),
    protect: fc.option(fc.boolean(), { nil: undefined }),
    protectMs: fc.option(fc.integer({ min: 0, max: 100_000 }), { nil: undefined }),
    atDeadline: fc.option(fc.constantFrom('wait' as const, 'ask' as const, 'reset' as const), { nil: undefined }),
  });
  const anyConnection = fc.record({
    protocol: fc.constantFrom(...PROTOCOLS),
    listener: fc.constantFrom('a', 'b1'),
    inFlight: fc.option(fc.nat(2), { nil: undefined }),
    toldAt: fc.option(fc.integer({ min: START, max: START + 100_000 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(
      fc.array(anyConnection, { maxLength: 6 }),
      fc.array(anyRule, { maxLength: 2 }),
      fc.constantFrom('wait' as const, 'ask' as const, 'reset' as const),
      fc.integer({ min: 0, max: 200_000 }),
      fc.boolean(),
      fc.boolean(),
      (all, rules, atDeadline, later, paced, overBudget) => {
        const given = input(
          all.map(({ inFlight, toldAt, protocol, listener }, n) =>
            connection(String(n), protocol, {
              listener,
              ...(inFlight !== undefined && { inFlight }),
              ...(toldAt !== undefined && { toldAt }),
            }),
          ),
          { rules: rules as PolicyRule[], atDeadline, maxDrainMs: 100_000 },
          { now: START + later, paced, overBudget },
        );
        const verdict = computeVerdict(given);
        const held = allHeld(given);
        expect(verdict.safe).toBe(held.every((one) => !one.protected));
        expect(verdict.holding).toBe(wouldBeCut(given).length);
        for (const one of held) {
          if (!one.protected && one.holds) expect(one.released).toBeDefined();
          if (one.released === 'deadline') expect(later).toBeGreaterThanOrEqual(100_000);
          if (one.released === 'memory') expect(overBudget).toBe(true);
        }
        for (const id of closableIdle(given)) expect(held.find((one) => one.connection.id === id)?.holds).toBe(false);
      },
    ),
    { numRuns: 300 },
  );
});
