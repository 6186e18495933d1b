import { isRolloutOver, type RolloutSpec } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { maxUnavailableOf, partitionOf, stageGoals } from './numbers.ts';
import { plan } from './planner.ts';
import { SimulatedFleet } from './simulation.ts';
import { newRollout, type RolloutEvent, type RolloutState } from './state.ts';

/** A rollout over a simulated fleet; every step is taken as the driver takes it. */
class Run {
  state: RolloutState;
  readonly fleet = new SimulatedFleet();
  now = 1_000_000;
  wakeAt: number | undefined;

  constructor(count: number, of: RolloutSpec, zones = 1) {
    for (let n = 0; n < count; n++) this.fleet.add(`p${n}`, `z${n % zones}`);
    this.state = newRollout('r', of, this.now);
  }

  /** `lost`: the controller dies after the step is stored, before its orders are out. */
  step(event: RolloutEvent = { type: 'tick' }, lost = false): void {
    const result = plan(this.state, this.fleet.observe(), this.now, event);
    this.state = JSON.parse(JSON.stringify(result.state)) as RolloutState;
    this.wakeAt = result.wakeAt;
    if (!lost) for (const action of result.actions) this.fleet.carryOut(action);
  }

  started(): string[] {
    return this.fleet.taken.filter((one) => one.type === 'start').map((one) => one.member);
  }

  advance(...names: string[]): void {
    for (const name of names) this.fleet.advance(name);
    this.step();
  }

  states(): string[] {
    return this.state.members.map((one) => one.state);
  }
}

describe('a rollout', () => {
  it('starts the canary alone, then batches, and is done when the old epochs have ended', () => {
    const run = new Run(4, rolloutSpec({ maxUnavailable: 2 }));
    run.step();
    expect(run.started()).toEqual(['p0']);
    run.advance('p0');
    expect(run.started()).toEqual(['p0', 'p1', 'p2']);
    run.advance('p1');
    expect(run.started()).toEqual(['p0', 'p1', 'p2', 'p3']);
    run.advance('p2', 'p3');
    expect(run.state.reason).toMatch(/old epochs drain/);
    run.advance('p0', 'p1', 'p2', 'p3');
    expect(run.state).toMatchObject({ phase: 'Done', reason: '4 of 4 have the target' });
  });

  it('the same step again orders nothing and changes nothing', () => {
    const run = new Run(3, rolloutSpec({ maxUnavailable: 2 }));
    run.step();
    const again = plan(run.state, run.fleet.observe(), run.now);
    expect(again.actions).toEqual([]);
    const third = plan(again.state, run.fleet.observe(), run.now);
    expect(third.state).toEqual(again.state);
    expect(third.entries).toEqual([]);
  });

  it('stands still after a stage until its time or a promotion; promoting twice is promoting once', () => {
    const run = new Run(4, rolloutSpec({ pauseBetweenMs: 5_000, batches: [2], maxUnavailable: 4 }));
    run.step();
    run.advance('p0');
    expect(run.state).toMatchObject({ phase: 'Paused', pause: { by: 'stage' } });
    expect(run.wakeAt).toBe(run.now + 5_000);
    run.step({ type: 'promote', by: 'jo' });
    run.step({ type: 'promote', by: 'jo' });
    expect(run.started()).toEqual(['p0', 'p1']);
    run.advance('p1');
    run.now += 5_000;
    run.step();
    expect(run.started()).toHaveLength(4);
  });

  it('a failed analysis starts nothing more; resumed, the failed one gets another turn', () => {
    const run = new Run(4, rolloutSpec({ canary: 0, maxUnavailable: 2 }));
    run.step();
    run.fleet.advance('p0', true);
    run.step();
    expect(run.state).toMatchObject({ phase: 'Paused', pause: { by: 'analysis' } });
    expect(run.state.reason).toContain('1 failed upgrades');
    run.advance('p1');
    expect(run.started()).toEqual(['p0', 'p1']);
    run.step({ type: 'resume', by: 'jo' });
    expect(run.state.phase).toBe('Progressing');
    expect(run.started().slice(2)).toEqual(['p0', 'p2']);
  });

  it('rolls back by policy: what serves is flipped, what starts is ended, newest first', () => {
    const run = new Run(5, rolloutSpec({ canary: 2, maxUnavailable: 2 }, { onFailure: 'rollback' }));
    run.step();
    run.advance('p0', 'p1');
    run.fleet.advance('p2', true);
    run.step();
    expect(run.state.phase).toBe('RollingBack');
    run.step();
    expect(run.fleet.taken.filter((one) => one.type === 'flip').map((one) => one.member)).toEqual(['p1', 'p0']);
    run.advance('p0', 'p1');
    expect(run.state.phase).toBe('RolledBack');
    expect(run.states()).toEqual(['rolledBack', 'rolledBack', 'failed', 'rolledBack', 'waiting']);
  });

  it('who was ordered a moment ago is not taken for never begun: it may begin yet, and is flipped back then', () => {
    const run = new Run(2, rolloutSpec({ canary: 0, maxUnavailable: 2 }));
    const orders = plan(run.state, run.fleet.observe(), run.now);
    run.state = orders.state;
    run.step({ type: 'rollback', by: 'jo' });
    expect([run.state.phase, run.states()]).toEqual(['RollingBack', ['starting', 'starting']]);
    // Only now the fleet shows what was ordered of one of them.
    run.fleet.carryOut(orders.actions[0] as (typeof orders.actions)[number]);
    run.fleet.advance('p0');
    run.now = run.wakeAt ?? 0;
    run.step();
    expect(run.states()).toEqual(['flipping', 'waiting']);
    run.advance('p0');
    expect([run.state.phase, run.states()]).toEqual(['RolledBack', ['rolledBack', 'waiting']]);
  });

  it('crashes, cut connections and metrics are judged too', () => {
    const run = new Run(2, rolloutSpec({}, { maxP99Ms: 100 }));
    run.step();
    run.step({ type: 'measured', measured: { at: run.now, p99Ms: 90 } });
    expect(run.state.phase).toBe('Progressing');
    run.step({ type: 'measured', measured: { at: run.now, p99Ms: 101 } });
    expect(run.state.reason).toContain('101 ms');
    const crash = new Run(2, rolloutSpec());
    crash.step();
    crash.step({ type: 'crashed', member: 'p0' });
    expect(crash.state.reason).toContain('1 crashes');
    const cut = new Run(2, rolloutSpec());
    cut.step();
    cut.fleet.advance('p0');
    cut.fleet.advance('p0', false, 3);
    cut.step();
    expect(cut.state.reason).toContain('3 protected connections cut');
    expect(cut.started()).toEqual(['p0']);
  });

  it('skips who has the target, waits for who is away, names him', () => {
    const run = new Run(3, rolloutSpec({ canary: 0, maxUnavailable: 2 }));
    run.fleet.members.get('p0')!.target = true;
    run.fleet.members.get('p1')!.reachable = false;
    run.step();
    expect(run.started()).toEqual(['p2']);
    run.advance('p2');
    expect(run.state.reason).toContain('p1 not available');
    run.fleet.members.get('p1')!.reachable = true;
    run.step();
    run.advance('p1', 'p2');
    run.advance('p1');
    expect(run.state.phase).toBe('Done');
    expect(run.states()).toEqual(['current', 'upgraded', 'upgraded']);
  });

  it('refuses verbs that mean nothing any more, and rolls one back that is done', () => {
    const run = new Run(1, rolloutSpec());
    run.step();
    run.advance('p0');
    run.advance('p0');
    expect(run.state.phase).toBe('Done');
    for (const type of ['pause', 'resume', 'promote', 'abort'] as const) {
      expect(() => run.step({ type, by: 'jo' })).toThrow(/it can not/);
    }
    run.step({ type: 'rollback', by: 'jo' });
    run.advance('p0');
    expect(run.state.phase).toBe('RolledBack');
    run.step({ type: 'rollback', by: 'jo' });
    expect(run.state.phase).toBe('RolledBack');
  });

  it('an order that nobody takes is given again, later each time, and then its member has failed', () => {
    const run = new Run(1, rolloutSpec());
    const lost = { type: 'tick' } as const;
    run.step(lost, true);
    const sent: number[] = [0];
    for (let n = 0; n < 10 && run.state.phase === 'Progressing'; n++) {
      const before = run.state.members[0]?.attempts;
      run.now = run.wakeAt ?? run.now;
      run.step(lost, true);
      if (run.state.members[0]?.attempts !== before) sent.push((run.now - 1_000_000) / 1_000);
    }
    expect(sent).toEqual([0, 5, 15, 35, 75]);
    expect(run.now).toBe(1_000_000 + 135_000);
    expect(run.state.members[0]).toMatchObject({ state: 'failed', failures: 1 });
  });

  it('named canaries go first wherever they are', () => {
    const run = new Run(4, rolloutSpec({ canary: ['p2', 'p3'], maxUnavailable: 4 }));
    run.step();
    expect(run.started()).toEqual(['p2', 'p3']);
    run.advance('p2');
    expect(run.started()).toHaveLength(2);
    run.advance('p3');
    expect(run.started()).toEqual(['p2', 'p3', 'p0', 'p1']);
  });
});

const part = (max: number) =>
  fc.oneof(
    fc.integer({ min: 0, max }),
    fc.integer({ min: 0, max: 100 }).map((n) => `${n}%`),
  );
const strategies = fc.record({
  partition: part(4),
  maxUnavailable: fc.oneof(
    fc.integer({ min: 1, max: 4 }),
    fc.integer({ min: 1, max: 100 }).map((n) => `${n}%`),
  ),
  canary: part(3),
  batches: fc.array(part(8), { maxLength: 3 }),
  pauseBetweenMs: fc.constantFrom(0, 1_000),
  promotion: fc.constantFrom('auto' as const, 'manual' as const),
  spread: fc.constantFrom('', 'zone'),
  until: fc.constantFrom('serving' as const, 'reset' as const),
});
const moves = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ do: fc.constant('advance' as const), who: fc.nat(9), fails: fc.boolean() }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('advance' as const), who: fc.nat(9), fails: fc.constant(true) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('away' as const), who: fc.nat(9) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('die' as const), who: fc.nat(9) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('say' as const),
        verb: fc.constantFrom(
          'pause' as const,
          'resume' as const,
          'promote' as const,
          'rollback' as const,
          'abort' as const,
        ),
      }),
    },
  ),
  { maxLength: 60 },
);

describe('every history', () => {
  it('keeps maxUnavailable, partition, canary and zones, stops at a failed analysis, and ends', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        strategies,
        fc.constantFrom('pause' as const, 'rollback' as const),
        moves,
        (count, strategy, onFailure, history) => {
          const run = new Run(count, rolloutSpec(strategy, { onFailure }), 3);
          const limit = maxUnavailableOf(run.state.spec.strategy, count);
          const allowed = count - partitionOf(run.state.spec.strategy, count);
          const goals = stageGoals(
            run.state.spec,
            [...run.fleet.members].map(([name]) => name),
          );
          const step = (event?: RolloutEvent, lost = false): void => {
            const before = run.state;
            const gone = run.fleet.unavailable();
            const had = run.fleet.taken.length;
            try {
              run.step(event, lost);
            } catch (thrown) {
              expect(thrown).toMatchObject({ code: 'PHASE_REFUSED' });
            }
            const orders = run.fleet.taken.slice(had);
            const now = run.fleet.unavailable();
            // Who is away is away by himself; nobody is added to them beyond the limit.
            if (now.length > gone.length) expect(now.length).toBeLessThanOrEqual(limit);
            expect(run.state.members.filter((one) => one.state !== 'waiting').length).toBeLessThanOrEqual(allowed);
            const begun = orders.filter((one) => one.type === 'start');
            if (begun.length > 0) expect(run.state.phase).toMatch(/Progressing|Paused/);
            if (
              before.phase === 'Paused' &&
              before.pause?.by !== 'stage' &&
              event?.type !== 'resume' &&
              event?.type !== 'resumed'
            )
              expect(begun).toEqual([]);
            const failures = run.state.members.reduce((sum, one) => sum + one.failures, 0);
            if (failures > run.state.baseline.failedUpgrades && event?.type !== 'resume') expect(begun).toEqual([]);
            // Nobody of a later stage before all of the canary have served or failed.
            if (run.state.stage === 0) {
              const touched = run.state.members.filter((one) => one.state !== 'waiting').length;
              expect(touched).toBeLessThanOrEqual(goals[0] ?? 0);
            }
          };
          step();
          for (const move of history) {
            const name = `p${('who' in move ? move.who : 0) % count}`;
            run.now += 300;
            if (move.do === 'advance') {
              run.fleet.advance(name, move.fails);
              step();
            } else if (move.do === 'away') {
              const member = run.fleet.members.get(name)!;
              member.reachable = !member.reachable;
              step();
            } else if (move.do === 'die') {
              run.fleet.advance(name);
              step({ type: 'tick' }, true);
              step({ type: 'resumed' });
            } else {
              step({ type: move.verb, by: 'jo' });
              // Said twice is said once.
              if (move.verb !== 'promote' && move.verb !== 'resume') {
                const seen = run.fleet.observe();
                const outcome = (event: RolloutEvent): unknown => {
                  try {
                    return plan(run.state, seen, run.now, event);
                  } catch (thrown) {
                    return (thrown as { code: string }).code;
                  }
                };
                const again = outcome({ type: move.verb, by: 'jo' });
                if (again !== 'PHASE_REFUSED') expect(again).toEqual(outcome({ type: 'tick' }));
              }
            }
          }
          // From now on everybody answers and somebody resumes what is paused.
          for (const [, member] of run.fleet.members) member.reachable = true;
          for (let n = 0; n < 80 && !isRolloutOver(run.state.phase); n++) {
            run.now += 70_000;
            if (run.state.phase === 'Paused') step({ type: 'resume', by: 'jo' });
            else step();
            for (const [name] of run.fleet.members) run.fleet.advance(name);
          }
          expect(isRolloutOver(run.state.phase)).toBe(true);
          if (run.state.phase === 'Done') {
            expect(run.state.members.filter((one) => one.state === 'upgraded').length).toBe(allowed);
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  it('gives the zones their turns evenly', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 4 }), (count, maxUnavailable) => {
        const run = new Run(count, rolloutSpec({ spread: 'zone', maxUnavailable, canary: 0 }), 3);
        for (let n = 0; n < 60 && run.state.phase !== 'Done'; n++) {
          run.step();
          const turns = ['z0', 'z1', 'z2'].map((zone) => ({
            begun: run.state.members.filter((one) => one.zone === zone && one.state !== 'waiting').length,
            left: run.state.members.filter((one) => one.zone === zone && one.state === 'waiting').length,
          }));
          const open = turns.filter((one) => one.left > 0).map((one) => one.begun);
          const most = Math.max(...turns.map((one) => one.begun));
          for (const begun of open) expect(most - begun).toBeLessThanOrEqual(1);
          for (const [name] of run.fleet.members) run.fleet.advance(name);
        }
        expect(run.state.phase).toBe('Done');
      }),
      { numRuns: 60 },
    );
  });
});
