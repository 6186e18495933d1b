import { DEFAULT_POLICY, isTerminal, type Phase } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { epochStatus, verdict } from '../testing/fake-agent.ts';
import { around, FIRST, fresh, judged, lists, passed, reset, run, serving, T0, turn } from '../testing/story.ts';
import { nextWake, step } from './machine.ts';
import type { Command, UpgradeEvent } from './state.ts';

const anyEvent: fc.Arbitrary<UpgradeEvent> = fc.oneof(
  fc.constantFrom<UpgradeEvent>(
    turn,
    passed,
    { ...passed, ok: false } as UpgradeEvent,
    serving,
    { ...serving, epoch: 5, oldEpoch: 4 } as UpgradeEvent,
    { type: 'failed', code: 'SLUICE_EPOCH_DIED', message: 'died', rolledBack: false },
    { type: 'failed', code: 'SLUICE_EPOCH_DIED', message: 'died', rolledBack: true },
    { type: 'orderAcked', version: FIRST },
    { type: 'orderNacked', version: FIRST, error: 'no' },
    { type: 'orderApplied', epoch: 0, version: FIRST, via: 'xds' },
    { type: 'share', perSecond: 5 },
    { type: 'share', perSecond: 50 },
    { type: 'orderApplied', epoch: 9, version: FIRST, via: 'xds' },
    reset,
    { ...reset, epoch: 4 } as UpgradeEvent,
    { type: 'abort', by: 'jo' },
    { type: 'rollback', rollbackId: 'u2' },
    { type: 'rollbackServing' },
    { type: 'resumed' },
    { type: 'tick' },
    ...Object.values(lists('u1')).flatMap((epochs): UpgradeEvent[] => [
      { type: 'epochs', slot: '1', epochs, hello: true },
      { type: 'epochs', slot: '1', epochs, hello: false },
      { type: 'epochs', slot: '2', epochs, hello: true },
    ]),
  ),
  fc.record({ type: fc.constant('override' as const), by: fc.constant('jo'), reason: fc.constant('because') }),
  fc
    .tuple(fc.boolean(), fc.integer({ min: 0, max: 100_000 }), fc.constantFrom(0, 4, 9))
    .map(([safe, at, epoch]): UpgradeEvent => ({ type: 'verdict', epoch, verdict: verdict(safe, { at: T0 + at }) })),
);

const STORY = [turn, passed, serving, judged(false), judged(true), reset];

/** The first steps of a good upgrade, so that every phase is reached, and then anything. */
const history = fc
  .tuple(
    fc.nat(STORY.length),
    fc.array(
      fc.record({
        event: anyEvent,
        wait: fc.constantFrom(0, 1, 100, 5_000, 61_000, 700_000),
        connected: fc.boolean(),
      }),
      { maxLength: 30 },
    ),
  )
  .map(([steps, then]) => [...STORY.slice(0, steps).map((event) => ({ event, wait: 100, connected: true })), ...then]);

describe('any history', () => {
  it('never authorises a reset without a safe verdict or a recorded override, and never leaves a terminal phase', () => {
    fc.assert(
      fc.property(history, fc.constantFrom('wait', 'ask', 'reset' as const), (events, atDeadline) => {
        let state = fresh({ policy: { ...DEFAULT_POLICY, atDeadline } });
        let now = T0;
        let ended: Phase | undefined;
        const safeFor = new Set<number>();
        for (const { event, wait, connected } of events) {
          now += wait;
          const result = step(state, event, around(now, connected ? ['1'] : []));
          const verdicts = event.type === 'epochs' ? [] : event.type === 'verdict' ? [event] : [];
          for (const one of verdicts) if (one.verdict.safe) safeFor.add(one.epoch);
          for (const command of result.commands) {
            if (command.type !== 'authorizeReset') continue;
            expect(command.epoch).toBe(result.state.oldEpoch);
            if (command.override === undefined) expect(safeFor.has(command.epoch)).toBe(true);
            else expect(result.state.override).toMatchObject(command.override);
          }
          if (result.state.override !== undefined && state.override === undefined) {
            expect(result.entries.map((entry) => entry.event)).toContain('override');
          }
          if (ended !== undefined) expect(result.state.phase).toBe(ended);
          if (isTerminal(result.state.phase)) ended = result.state.phase;
          if (result.state.phase !== state.phase) expect(result.entries.some((e) => e.event === 'phase')).toBe(true);
          // Everything that is kept survives being stored.
          expect(JSON.parse(JSON.stringify(result.state))).toEqual(result.state);
          state = result.state;
        }
      }),
      { numRuns: 2_000 },
    );
  });

  it('does nothing new when an agent’s message comes twice', () => {
    fc.assert(
      fc.property(history, anyEvent, (events, event) => {
        if (['tick', 'resumed', 'epochs'].includes(event.type)) return;
        const before = run(events.map((one) => one.event));
        const now = before.state.phaseSince + 10;
        const once = step(before.state, event, around(now));
        const twice = step(once.state, event, around(now));
        expect(twice.state.phase).toBe(once.state.phase);
        expect(twice.entries).toEqual([]);
        expect(twice.commands).toEqual([]);
      }),
      { numRuns: 2_000 },
    );
  });

  it('ends once its agent is there and answers', () => {
    fc.assert(
      fc.property(history, (events) => {
        let state = run(events.map((one) => one.event)).state;
        // The machine names the epochs of this upgrade; the agent's world is made to fit.
        const old = state.oldEpoch ?? 0;
        const young = state.epoch ?? old + 1;
        let world: 'before' | 'after' | 'over' = state.epoch === undefined ? 'before' : 'after';
        if (state.resetAt !== undefined) world = 'over';
        let now = Math.max(T0, state.phaseSince, state.verdict?.at ?? 0);
        const queue: UpgradeEvent[] = [];
        const epochs = () =>
          ({
            before: [epochStatus(old, 'serving')],
            after: [
              epochStatus(old, 'draining', { upgradeId: 'u1' }),
              epochStatus(young, 'serving', { upgradeId: 'u1' }),
            ],
            over: [epochStatus(young, 'serving', { upgradeId: 'u1' })],
          })[world];
        const answer = (command: Command): void => {
          if (command.type === 'sendPreflight') queue.push(passed);
          if (command.type === 'sendStart') {
            world = 'after';
            queue.push({ ...serving, epoch: young, oldEpoch: old } as UpgradeEvent);
          }
          if (command.type === 'sendAbort' && world === 'before') {
            queue.push({ type: 'failed', code: 'SLUICE_ABORTED', message: 'given up', rolledBack: false });
          }
          if (command.type === 'pushOrder') {
            queue.push({ type: 'orderApplied', epoch: old, version: command.order.version, via: 'xds' });
            queue.push({ type: 'verdict', epoch: old, verdict: verdict(true, { at: now }) });
          }
          if (command.type === 'authorizeReset') {
            world = 'over';
            queue.push({ ...reset, epoch: old } as UpgradeEvent);
          }
        };
        queue.push({ type: 'resumed' }, { type: 'epochs', slot: '1', epochs: epochs(), hello: true }, turn);
        for (let n = 0; n < 60 && !isTerminal(state.phase); n += 1) {
          const event = queue.shift();
          if (event === undefined) {
            const wake = nextWake(state, new Set(['1']));
            expect(wake).toBeDefined();
            now = Math.max(now, wake as number);
          } else now += 1;
          const result = step(state, event ?? { type: 'tick' }, around(now));
          state = result.state;
          for (const command of result.commands) answer(command);
        }
        expect(isTerminal(state.phase)).toBe(true);
      }),
      { numRuns: 1_000 },
    );
  });
});
