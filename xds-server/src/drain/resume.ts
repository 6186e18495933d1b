import { isTerminal } from '@sluice/contract';
import type { Bounds } from './state.ts';
import { authorise, fail, hearReset, hearServing, hearVerdict, type Of } from './transitions.ts';
import type { Turn } from './turn.ts';

/** Gives the orders of the phase again: the agent takes each one twice without harm. */
export function resume(turn: Turn): void {
  const { state } = turn;
  if (state.phase === 'Preflight') turn.command({ type: 'sendPreflight', slot: state.slot as string });
  if (state.order !== undefined && state.resetAt === undefined) {
    turn.command({ type: 'pushOrder', slot: state.oldSlot, order: state.order });
  }
  if (state.phase === 'SafeToReset') turn.phase('Resetting', `the reset of epoch ${state.oldEpoch} is authorised`);
  const left = isTerminal(state.phase) && state.authorisedAt !== undefined && state.resetAt === undefined;
  if (turn.state.phase === 'Resetting' || left) authorise(turn);
}

export function hearEpochs(turn: Turn, event: Of<'epochs'>, bounds: Bounds): void {
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
    endWithout(turn, state.oldEpoch);
    return;
  }
  if (!event.hello) return;
  // That it was applied is told once, maybe to a controller that is no more.
  const { order, orderAppliedAt } = state;
  if (order !== undefined && orderAppliedAt === undefined && old.orderVersion === order.version) {
    turn.set({ orderAppliedAt: turn.around.now });
    turn.note(
      'order-applied',
      `epoch ${old.epoch} tells its connections to leave, as its agent says when it comes back`,
    );
  }
  resume(turn);
  if (old.verdict !== undefined) hearVerdict(turn, { type: 'verdict', epoch: old.epoch, verdict: old.verdict });
}

/** Nothing of the proxy is left: what did not serve yet has failed, what drained has ended. */
export function hearGone(turn: Turn, why: string): void {
  const { phase, oldEpoch, resetAt } = turn.state;
  if (phase === 'Idle' || phase === 'Preflight' || phase === 'Starting') fail(turn, 'AGENT_AWAY', why);
  else if (oldEpoch !== undefined && resetAt === undefined) endWithout(turn, oldEpoch, why);
}

/** Without the agent's own account, what was protected last counts as cut: never as drained, also those not named. */
function endWithout(turn: Turn, epoch: number, why?: string): void {
  const { verdict } = turn.state;
  const cut = (verdict?.held ?? []).filter((one) => one.protected).map((one) => one.connection);
  const { total = 0, protected: left = 0 } = verdict ?? {};
  const drained = Math.max(0, total - Math.max(left, cut.length));
  const because = why === undefined ? {} : { why };
  hearReset(turn, { type: 'resetDone', epoch, at: turn.around.now, old: total, drained, cut, ...because });
}

/** After the agent or its link was gone in Starting: does the new epoch serve, is it on its way, or unknown there? */
export function resumeStarting(turn: Turn, event: Of<'epochs'>, bounds: Bounds): void {
  const { state } = turn;
  if (event.slot !== state.slot) return;
  const ours = event.epochs.filter((epoch) => epoch.upgradeId === state.id);
  const fresh = ours.find((epoch) => epoch.state === 'serving');
  if (fresh !== undefined) {
    // Others may drain too, by upgrades before this one.
    const old = ours.find((epoch) => epoch.epoch < fresh.epoch && epoch.state === 'draining');
    if (old !== undefined) {
      hearServing(turn, {
        type: 'serving',
        epoch: fresh.epoch,
        oldEpoch: old.epoch,
        from: old.version,
        to: fresh.version,
        at: turn.around.now,
        method: fresh.method ?? 'hot-restart',
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
