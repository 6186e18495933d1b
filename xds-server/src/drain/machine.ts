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
import { buildOrder } from './orders.ts';
import type { Bounds, Step, Surroundings, UpgradeEvent, UpgradeState } from './state.ts';
import { DEFAULT_BOUNDS } from './state.ts';
import { Turn } from './turn.ts';

type Of<T extends UpgradeEvent['type']> = Extract<UpgradeEvent, { type: T }>;

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

function hearServing(turn: Turn, event: Of<'serving'>): void {
  const { state } = turn;
  if (state.epoch !== undefined || state.phase === 'Idle' || state.phase === 'Done') return;
  const oldSlot = turn.around.slotOf(event.oldEpoch) ?? state.slot;
  const order = buildOrder(state, event.oldEpoch, turn.around.now);
  turn.set({
    epoch: event.epoch,
    oldEpoch: event.oldEpoch,
    from: event.from,
    to: event.to,
    method: event.method,
    order,
    ...(oldSlot === undefined ? {} : { oldSlot }),
  });
  // After Failed the phase stays; the order is given all the same, for the old epoch is draining and nobody else asks.
  if (isTerminal(state.phase)) turn.note('late', `epoch ${event.epoch} serves although the upgrade was given up`);
  else if (state.abort !== undefined) turn.note('abort-late', `the abort came too late: epoch ${event.epoch} serves`);
  turn.phase('Draining', `epoch ${event.epoch} (${event.to}) serves, epoch ${event.oldEpoch} (${event.from}) drains`);
  turn.command({ type: 'pushOrder', slot: turn.state.oldSlot, order });
  turn.sent();
}

function hearFailed(turn: Turn, event: Of<'failed'>): void {
  if (event.rolledBack) {
    turn.set({ failure: { code: event.code, message: event.message }, rolledBack: true });
    turn.phase('RolledBack', event.message);
  } else {
    fail(turn, event.code, event.message);
  }
}

function hearApplied(turn: Turn, event: Of<'orderApplied'>): void {
  const { state } = turn;
  // Version 0 is the agent's own order, given when none came in time.
  if (event.epoch !== state.oldEpoch || event.version > (state.order?.version ?? -1)) return;
  if (state.orderAppliedAt !== undefined) return;
  turn.set({ orderAppliedAt: turn.around.now, orderVia: event.via });
  turn.note('order-applied', `epoch ${event.epoch} tells its connections to leave; the order came by ${event.via}`);
}

function hearVerdict(turn: Turn, event: Of<'verdict'>): void {
  const { state } = turn;
  if (event.epoch !== state.oldEpoch || event.verdict.at < (state.verdict?.at ?? 0)) return;
  if (state.resetAt !== undefined) return;
  turn.set({ verdict: event.verdict });
  if (isTerminal(state.phase)) {
    // What an upgrade that was given up has left behind is ended by the same rule.
    if (event.verdict.safe && state.authorisedAt === undefined) authorise(turn);
    return;
  }
  if (event.verdict.safe && state.phase === 'Draining') {
    turn.set({ safeToResetAt: event.verdict.at });
    turn.phase('SafeToReset', event.verdict.summary);
    turn.phase('Resetting', `the reset of epoch ${state.oldEpoch} is authorised`);
    authorise(turn);
  } else if (!event.verdict.safe && state.phase === 'Resetting' && state.override === undefined) {
    turn.phase('Draining', `the agent takes its verdict back: ${event.verdict.summary}`);
  } else if (state.phase === 'Draining') {
    turn.set({ reason: event.verdict.summary });
  }
}

function hearReset(turn: Turn, event: Of<'resetDone'>): void {
  const { state } = turn;
  if (event.epoch !== state.oldEpoch || state.resetAt !== undefined) return;
  const { old, drained, cut } = event;
  turn.set({ resetAt: event.at, connections: { old, drained, cut } });
  const names = cut.slice(0, 5).map((one) => `${one.peer || one.id} (${one.protocol})`);
  const tail = cut.length > names.length ? ` and ${cut.length - names.length} more` : '';
  const cutText = cut.length === 0 ? 'none cut' : `${cut.length} cut: ${names.join(', ')}${tail}`;
  const unasked = state.authorisedAt === undefined ? ', which the agent did by itself' : '';
  turn.note(
    'reset',
    `epoch ${event.epoch} has ended${unasked}: ${old} old connections, ${drained} drained, ${cutText}`,
  );
  finish(turn, `epoch ${event.epoch} has ended: ${drained} of ${old} connections drained, ${cutText}`);
}

function finish(turn: Turn, reason: string): void {
  turn.phase(turn.state.rolledBack === true ? 'RolledBack' : 'Done', reason);
  if (turn.state.oldEpoch !== undefined) turn.command({ type: 'withdrawOrder', epoch: turn.state.oldEpoch });
}

function fail(turn: Turn, code: string, message: string): void {
  if (isTerminal(turn.state.phase)) return;
  turn.set({ failure: { code: code.startsWith('SLUICE_') ? code : `SLUICE_${code}`, message } });
  turn.phase('Failed', message);
}

function authorise(turn: Turn): void {
  const { oldEpoch, oldSlot, override: by } = turn.state;
  if (oldEpoch === undefined) return;
  turn.set({ authorisedAt: turn.state.authorisedAt ?? turn.around.now });
  turn.command({
    type: 'authorizeReset',
    slot: oldSlot,
    epoch: oldEpoch,
    ...(by === undefined ? {} : { override: { by: by.by, reason: by.reason } }),
  });
  turn.sent();
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

/** The agent may serve already: its answer decides, `failed` or `serving`. */
function askToGiveUp(turn: Turn, code: string, message: string): void {
  if (turn.state.abort !== undefined) return;
  turn.set({ abort: { at: turn.around.now, code, message }, reason: `${message}; waiting for the agent's answer` });
  turn.note('abort', message);
  turn.command({ type: 'sendAbort', slot: turn.state.slot as string });
}

function override(turn: Turn, by: string, reason: string): void {
  const { state } = turn;
  if (state.phase !== 'Draining' && state.phase !== 'SafeToReset' && state.phase !== 'Resetting') return;
  if (state.override !== undefined) return;
  turn.set({ override: { by, reason, at: turn.around.now } });
  const left = state.verdict === undefined ? 'an unknown number of' : String(state.verdict.protected);
  turn.note('override', `${by} resets with ${left} protected connections left: ${reason}`);
  turn.phase('Resetting', `override by ${by}: ${reason}`);
  authorise(turn);
}

/** Gives the orders of the phase again: the agent takes each one twice without harm. */
function resume(turn: Turn): void {
  const { state } = turn;
  if (state.phase === 'Preflight') turn.command({ type: 'sendPreflight', slot: state.slot as string });
  if (state.order !== undefined && state.resetAt === undefined) {
    turn.command({ type: 'pushOrder', slot: state.oldSlot, order: state.order });
  }
  if (state.phase === 'SafeToReset') turn.phase('Resetting', `the reset of epoch ${state.oldEpoch} is authorised`);
  if (turn.state.phase === 'Resetting') authorise(turn);
}

function hearEpochs(turn: Turn, event: Of<'epochs'>, bounds: Bounds): void {
  const { state } = turn;
  if (state.phase === 'Starting' && event.hello) {
    resumeStarting(turn, event, bounds);
    return;
  }
  if (state.phase === 'Preflight' && event.hello && event.slot === state.slot) {
    resume(turn);
    return;
  }
  if (state.oldEpoch === undefined || state.resetAt !== undefined) return;
  if (event.slot !== (state.oldSlot ?? state.slot)) return;
  const old = event.epochs.find((epoch) => epoch.epoch === state.oldEpoch);
  // The agent sends its account of a reset before the list without the epoch: a list alone means that it just ended.
  const over = old === undefined || old.state === 'crashed' || old.state === 'ended';
  if (over) {
    const cut = (state.verdict?.held ?? []).filter((one) => one.protected).map((one) => one.connection);
    const total = state.verdict?.total ?? 0;
    // Without the agent's own account, what was protected last counts as cut: never as drained.
    hearReset(turn, {
      type: 'resetDone',
      epoch: state.oldEpoch,
      at: turn.around.now,
      old: total,
      drained: total - cut.length,
      cut,
    });
    return;
  }
  if (!event.hello) return;
  resume(turn);
  if (old.verdict !== undefined) hearVerdict(turn, { type: 'verdict', epoch: old.epoch, verdict: old.verdict });
}

/** After the agent or its link was gone in Starting: does the new epoch serve, is it on its way, or unknown there? */
function resumeStarting(turn: Turn, event: Of<'epochs'>, bounds: Bounds): void {
  const { state } = turn;
  if (event.slot !== state.slot) return;
  const ours = event.epochs.filter((epoch) => epoch.upgradeId === state.id);
  const fresh = ours.find((epoch) => epoch.state === 'serving');
  if (fresh !== undefined) {
    const older = event.epochs.filter((epoch) => epoch.epoch < fresh.epoch && epoch.state === 'draining');
    const old = older.sort((a, b) => b.epoch - a.epoch)[0];
    if (old !== undefined) {
      hearServing(turn, {
        type: 'serving',
        epoch: fresh.epoch,
        oldEpoch: old.epoch,
        from: old.version,
        to: fresh.version,
        at: turn.around.now,
        method: 'hot-restart',
      });
      return;
    }
    // In another slot, or ended meanwhile: a repeated start makes the agent name it.
    turn.command({ type: 'sendStart', slot: state.slot });
    return;
  }
  if (ours.some((epoch) => epoch.state === 'starting')) {
    if (state.abort !== undefined) turn.command({ type: 'sendAbort', slot: state.slot });
    return;
  }
  if (state.abort !== undefined) {
    fail(turn, state.abort.code, state.abort.message);
    return;
  }
  if (turn.around.now >= state.phaseSince + bounds.starting) {
    fail(turn, 'EPOCH_TIMEOUT', 'the agent came back without a new epoch, and the time for the start is over');
    return;
  }
  turn.command({ type: 'sendStart', slot: state.slot });
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
  if (deadline === undefined || now < deadline || turn.state.deadlineRecorded === true) return;
  turn.set({ deadlineRecorded: true });
  const { atDeadline, maxDrainMs } = turn.state.policy;
  const text = `the maximum drain time of ${maxDrainMs / 1000} s is over`;
  if (atDeadline === 'reset') {
    turn.note('deadline', `${text}: policy resets`);
    override(turn, 'policy', text);
  } else {
    turn.note('deadline', `${text}: ${atDeadline === 'ask' ? 'an operator has to decide' : 'policy waits on'}`);
  }
}

export function deadlineOf(state: UpgradeState): number | undefined {
  return state.order === undefined ? undefined : state.order.issuedAt + state.policy.maxDrainMs;
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
      const deadline = state.deadlineRecorded === true ? undefined : deadlineOf(state);
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
