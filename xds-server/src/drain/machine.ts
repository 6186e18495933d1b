/**
 * One upgrade's life as a pure function: (state, event, surroundings) -> (state, commands, record).
 *
 *   Idle --turn--> Preflight --ok--> Starting --serving--> Draining --safe--> SafeToReset --> Resetting --done--> Done
 *    |                |                 |                    |  ^                               |   |
 *    | abort, bound   | refused, bound, | failed, agent's    |  +-- the agent takes it back ----+   |
 *    v                v abort           v answer to abort    +-- override, deadline policy -------->|
 *  Failed           Failed         Failed / RolledBack                      a flip back served: RolledBack
 *
 * Two rules carry it. A reset is authorised only on the agent's safe verdict or on a recorded override. And from the
 * `start` on the upgrade is not called failed while its agent is away, because the new epoch may serve by now: the
 * agent's next hello decides. Events may come twice, late or in another order; what does not fit a phase is ignored.
 */
import { isTerminal } from '@sluice/contract';
import { withPace } from './orders.ts';
import { hearEpochs, hearGone, resume } from './resume.ts';
import type { Bounds, Step, Surroundings, UpgradeEvent, UpgradeState } from './state.ts';
import { DEFAULT_BOUNDS } from './state.ts';
import {
  askToGiveUp,
  authorise,
  fail,
  hearApplied,
  hearReset,
  hearServing,
  hearVerdict,
  noteLimit,
  type Of,
  override,
} from './transitions.ts';
import { Turn } from './turn.ts';

export function step(
  state: UpgradeState,
  event: UpgradeEvent,
  around: Surroundings,
  bounds: Bounds = DEFAULT_BOUNDS,
): Step {
  const turn = new Turn(state, around);
  switch (event.type) {
    case 'turn':
      begin(turn, event);
      break;
    case 'epochs':
      hearEpochs(turn, event, bounds);
      break;
    case 'gone':
      hearGone(turn, event.why);
      break;
    case 'preflight':
      if (state.phase === 'Preflight') hearPreflight(turn, event);
      break;
    case 'serving':
      hearServing(turn, event);
      break;
    case 'failed':
      hearFailed(turn, event);
      break;
    case 'orderAcked':
      if (event.version === state.order?.version && state.orderAckedAt === undefined) {
        turn.set({ orderAckedAt: around.now });
        turn.note('order-acked', `Envoy of epoch ${state.oldEpoch} took drain order ${event.version}`);
      }
      break;
    case 'orderNacked':
      if (event.version === state.order?.version && state.orderNack !== event.error) {
        turn.set({ orderNack: event.error });
        turn.note('order-nacked', `Envoy of epoch ${state.oldEpoch} refused drain order: ${event.error}`);
      }
      break;
    case 'orderApplied':
      hearApplied(turn, event);
      break;
    case 'verdict':
      hearVerdict(turn, event);
      break;
    case 'resetDone':
      hearReset(turn, event);
      break;
    case 'share':
      share(turn, event.perSecond);
      break;
    case 'abort':
      abort(turn, event.by);
      break;
    case 'override':
      override(turn, event.by, event.reason);
      break;
    case 'rollback':
      if (isTerminal(state.phase) || state.rollbackId !== undefined) break;
      turn.set({ rollbackId: event.rollbackId });
      turn.note('rollback', `upgrade ${event.rollbackId} flips back to ${state.from ?? 'the former version'}`);
      break;
    case 'rollbackServing':
      if (!isTerminal(state.phase)) turn.set({ rolledBack: true });
      break;
    case 'resumed':
      resume(turn);
      break;
    case 'tick':
      tick(turn, bounds);
      break;
  }
  return turn.done();
}

function begin(turn: Turn, event: Of<'turn'>): void {
  if (turn.state.phase !== 'Idle') return;
  turn.set({ slot: event.slot, ...(event.fromTarget === undefined ? {} : { fromTarget: event.fromTarget }) });
  turn.phase('Preflight', `the agent of slot ${event.slot} checks ${turn.state.target.to}`);
  turn.command({ type: 'sendPreflight', slot: event.slot });
}

function hearPreflight(turn: Turn, event: Of<'preflight'>): void {
  turn.set({
    checks: event.checks,
    ...(event.from === undefined ? {} : { from: event.from }),
    ...(event.to === undefined ? {} : { to: event.to }),
  });
  if (!event.ok) {
    const bad = event.checks.find((check) => !check.ok);
    const message = bad === undefined ? 'preflight refused the target' : `${bad.name}: ${bad.found}`;
    fail(turn, bad?.code ?? 'SLUICE_INTERNAL', message);
    return;
  }
  turn.phase('Starting', `${event.from ?? 'the running epoch'} serves until ${event.to ?? turn.state.target.to} does`);
  turn.command({ type: 'sendStart', slot: turn.state.slot as string });
}

function hearFailed(turn: Turn, event: Of<'failed'>): void {
  if (event.rolledBack) {
    turn.set({ failure: { code: event.code, message: event.message }, rolledBack: true });
    turn.phase('RolledBack', event.message);
  } else {
    fail(turn, event.code, event.message);
  }
}

function abort(turn: Turn, by: string): void {
  const { state } = turn;
  const message = `aborted by ${by}`;
  if (state.phase === 'Idle') {
    fail(turn, 'ABORTED', message);
    return;
  }
  if (state.phase === 'Preflight') {
    turn.command({ type: 'sendAbort', slot: state.slot as string });
    fail(turn, 'ABORTED', message);
    return;
  }
  if (state.phase === 'Starting') askToGiveUp(turn, 'ABORTED', message);
}

function tick(turn: Turn, bounds: Bounds): void {
  const { state } = turn;
  const { now, connected } = turn.around;
  const over = (bound: number): boolean => now >= state.phaseSince + bound;
  switch (state.phase) {
    case 'Idle':
      if (over(bounds.idle)) fail(turn, 'AGENT_AWAY', `its turn did not come within ${bounds.idle / 1000} s`);
      return;
    case 'Preflight':
      if (!over(bounds.preflight)) return;
      turn.command({ type: 'sendAbort', slot: state.slot as string });
      fail(turn, 'TIMEOUT', `no answer to the preflight within ${bounds.preflight / 1000} s`);
      return;
    case 'Starting': {
      if (!connected.has(state.slot as string)) return;
      if (state.abort === undefined) {
        if (over(bounds.starting)) {
          askToGiveUp(turn, 'EPOCH_TIMEOUT', `the new epoch did not serve within ${bounds.starting / 1000} s`);
        }
      } else if (now >= state.abort.at + bounds.abort) {
        fail(turn, state.abort.code, `${state.abort.message}; the agent did not answer the abort`);
      }
      return;
    }
    case 'Draining':
      tickDraining(turn, bounds);
      return;
    case 'SafeToReset':
      resume(turn);
      return;
    case 'Resetting':
      if (now >= retryAt(state, bounds)) authorise(turn);
      return;
  }
}

function tickDraining(turn: Turn, bounds: Bounds): void {
  const { now } = turn.around;
  const { order, orderAppliedAt, oldSlot } = turn.state;
  if (order !== undefined && orderAppliedAt === undefined && now >= retryAt(turn.state, bounds)) {
    turn.command({ type: 'pushOrder', slot: oldSlot, order });
    turn.sent();
  }
  const deadline = deadlineOf(turn.state);
  if (deadline !== undefined && now >= deadline) noteLimit(turn, 'time');
}

function share(turn: Turn, perSecond: number): void {
  const { order, oldSlot, phase, resetAt } = turn.state;
  if (phase !== 'Draining' || order === undefined || resetAt !== undefined) return;
  if (order.pace?.perSecond === perSecond) return;
  const next = withPace(order, perSecond, turn.around.now);
  turn.set({ order: next });
  turn.command({ type: 'pushOrder', slot: oldSlot, order: next });
}

export function deadlineOf(state: UpgradeState): number | undefined {
  const { order, policy } = state;
  return order === undefined || policy.maxDrainMs === 0 ? undefined : order.issuedAt + policy.maxDrainMs;
}

function retryAt(state: UpgradeState, bounds: Bounds): number {
  const wait = Math.min(bounds.retryMax, bounds.retry * 2 ** Math.min(20, Math.max(0, state.attempts - 1)));
  return (state.sentAt ?? state.phaseSince) + wait;
}

/** When the next `tick` is due; undefined: nothing happens by time alone. */
export function nextWake(
  state: UpgradeState,
  connected: ReadonlySet<string>,
  bounds: Bounds = DEFAULT_BOUNDS,
): number | undefined {
  switch (state.phase) {
    case 'Idle':
      return state.phaseSince + bounds.idle;
    case 'Preflight':
      return state.phaseSince + bounds.preflight;
    case 'Starting':
      if (state.slot === undefined || !connected.has(state.slot)) return undefined;
      return state.abort === undefined ? state.phaseSince + bounds.starting : state.abort.at + bounds.abort;
    case 'Draining': {
      const retry = state.orderAppliedAt === undefined ? retryAt(state, bounds) : undefined;
      const deadline = state.limitsRecorded?.includes('time') ? undefined : deadlineOf(state);
      if (retry === undefined || deadline === undefined) return retry ?? deadline;
      return Math.min(retry, deadline);
    }
    case 'SafeToReset':
      return state.phaseSince;
    case 'Resetting':
      return retryAt(state, bounds);
    default:
      return undefined;
  }
}
