import { type DrainLimit, type Estimate, isTerminal, type Override, type Verdict } from '@sluice/contract';
import { buildOrder } from './orders.ts';
import type { UpgradeEvent } from './state.ts';
import type { Turn } from './turn.ts';

export type Of<T extends UpgradeEvent['type']> = Extract<UpgradeEvent, { type: T }>;

export function hearServing(turn: Turn, event: Of<'serving'>): void {
  const { state } = turn;
  if (state.epoch !== undefined || state.phase === 'Idle' || state.phase === 'Done') return;
  if (state.order !== undefined) {
    hearSuccessor(turn, event);
    return;
  }
  const oldSlot = turn.around.slotOf(event.oldEpoch) ?? state.slot;
  const order = buildOrder(state, event.oldEpoch, turn.around.now, { share: turn.around.share?.() });
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

/** The drain was adopted from the agent of the old epoch; now the other one tells what took its place. */
function hearSuccessor(turn: Turn, { epoch, oldEpoch, from, to, method }: Of<'serving'>): void {
  if (oldEpoch !== turn.state.oldEpoch) return;
  turn.set({ epoch, to, method, target: { to }, ...slotOf(turn, epoch) });
  turn.note('serving', `epoch ${epoch} (${to}) serves in the place of epoch ${oldEpoch} (${from})`);
}

function slotOf(turn: Turn, epoch: number): { readonly slot?: string } {
  const slot = turn.around.slotOf(epoch);
  return slot === undefined ? {} : { slot };
}

export function hearApplied(turn: Turn, event: Of<'orderApplied'>): void {
  const { state } = turn;
  // Version 0 is the agent's own order, given when none came in time.
  if (event.epoch !== state.oldEpoch || event.version > (state.order?.version ?? -1)) return;
  if (state.orderAppliedAt !== undefined) return;
  turn.set({ orderAppliedAt: turn.around.now, orderVia: event.via });
  turn.note('order-applied', `epoch ${event.epoch} tells its connections to leave; the order came by ${event.via}`);
}

export function hearVerdict(turn: Turn, event: Of<'verdict'>): void {
  const { state } = turn;
  if (event.epoch !== state.oldEpoch || event.verdict.at < (state.verdict?.at ?? 0)) return;
  if (state.resetAt !== undefined) return;
  turn.set({ verdict: event.verdict });
  hearEstimate(turn, event.verdict);
  if (event.verdict.limit !== undefined) noteLimit(turn, event.verdict.limit);
  if (event.verdict.overBudget === true) noteLimit(turn, 'memory');
  if (isTerminal(state.phase)) {
    // What an upgrade that was given up has left behind is ended by the same rule; anew where the agent took it back meanwhile.
    const news = state.authorisedAt === undefined || state.verdict?.safe === false;
    if (event.verdict.safe && news) authorise(turn);
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

export function hearReset(turn: Turn, event: Of<'resetDone'>): void {
  const { state } = turn;
  if (event.epoch !== state.oldEpoch || state.resetAt !== undefined) return;
  const { old, drained, cut, why } = event;
  turn.set({ resetAt: event.at, connections: { old, drained, cut, ...(why === undefined ? {} : { why }) } });
  const local = hearOverride(turn, event.override);
  const names = cut.slice(0, 5).map((one) => `${one.peer || one.id} (${one.protocol}${whose(one)})`);
  const tail = cut.length > names.length ? ` and ${cut.length - names.length} more` : '';
  const cutText = cut.length === 0 ? 'none cut' : `${cut.length} cut: ${names.join(', ')}${tail}`;
  const because = why === undefined ? '' : `: ${why}`;
  const unasked = state.authorisedAt === undefined && !local ? `, which the agent did by itself${because}` : because;
  turn.note(
    'reset',
    `epoch ${event.epoch} has ended${unasked}: ${old} old connections, ${drained} drained, ${cutText}`,
  );
  compareEstimate(turn, event.at);
  finish(turn, `epoch ${event.epoch} has ended: ${drained} of ${old} connections drained, ${cutText}`);
}

/** An override that the agent was given at its own socket is the one that ended the epoch. True where there is one. */
function hearOverride(turn: Turn, given: Override | undefined): boolean {
  const { override: known } = turn.state;
  if (given === undefined || (given.by === known?.by && given.reason === known.reason)) return false;
  const { by, reason, at } = given;
  turn.set({ override: { by, reason, at } });
  turn.note('override', `${by} reset epoch ${turn.state.oldEpoch} at the agent's own socket: ${reason}`);
  return true;
}

/**
 * A limit of policy is reached: each is said once. Whom it gives up is the agent's to say, whose verdict knows the rule of each
 * connection.
 */
export function noteLimit(turn: Turn, limit: DrainLimit): void {
  const { limitsRecorded = [] } = turn.state;
  if (limitsRecorded.includes(limit)) return;
  turn.set({ limitsRecorded: [...limitsRecorded, limit] });
  const { atDeadline, maxDrainMs, memory } = turn.state.policy;
  const reached =
    limit === 'time'
      ? `the maximum drain time of ${maxDrainMs / 1000} s is over`
      : `the lingering epochs hold more than the ${memory.budgetMiB} MiB that policy allows`;
  const says = {
    reset: 'policy waits for nobody that no rule protects',
    ask: 'an operator has to decide',
    wait: 'policy waits on',
  };
  turn.note('deadline', `${reached}: ${says[atDeadline]}`);
}

/** Whose word gave a connection up: the rule that held it and why it no longer did. */
function whose({ rule, released }: Of<'resetDone'>['cut'][number]): string {
  if (rule === undefined) return '';
  return released === undefined ? `, against rule ${rule}` : `, rule ${rule}: ${released}`;
}

/** The estimate of the first verdict after the order was applied: before it nobody had been told to leave. */
function hearEstimate(turn: Turn, { estimate, safe }: Verdict): void {
  const { orderAppliedAt, firstEstimate } = turn.state;
  if (estimate === undefined || orderAppliedAt === undefined || firstEstimate !== undefined || safe) return;
  turn.set({ firstEstimate: estimate });
  turn.note('estimate', `${forecastText(estimate)}, by ${estimate.observed} ends seen before`);
}

function compareEstimate(turn: Turn, at: number): void {
  const { firstEstimate, safeToResetAt } = turn.state;
  if (firstEstimate === undefined) return;
  const took = seconds((safeToResetAt ?? at) - firstEstimate.at);
  const late = firstEstimate.endsLate !== undefined && (safeToResetAt ?? at) > firstEstimate.endsLate;
  turn.note(
    'estimate-outcome',
    `it took ${took} from the estimate on; ${forecastText(firstEstimate)}: ${late ? 'later than that' : 'within it'}`,
  );
}

function forecastText({ at, endsAt, endsLate }: Estimate): string {
  const likely = endsAt === undefined ? 'no end in sight' : `an end in ${seconds(endsAt - at)} as likely as not`;
  return endsLate === undefined ? likely : `${likely}, in ${seconds(endsLate - at)} nine times of ten`;
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

function finish(turn: Turn, reason: string): void {
  turn.phase(turn.state.rolledBack === true ? 'RolledBack' : 'Done', reason);
  if (turn.state.oldEpoch !== undefined) turn.command({ type: 'withdrawOrder', epoch: turn.state.oldEpoch });
}

export function fail(turn: Turn, code: string, message: string): void {
  if (isTerminal(turn.state.phase)) return;
  turn.set({ failure: { code: code.startsWith('SLUICE_') ? code : `SLUICE_${code}`, message } });
  turn.phase('Failed', message);
}

export function authorise(turn: Turn): void {
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

/** The agent may serve already: its answer decides, `failed` or `serving`. */
export function askToGiveUp(turn: Turn, code: string, message: string): void {
  if (turn.state.abort !== undefined) return;
  turn.set({ abort: { at: turn.around.now, code, message }, reason: `${message}; waiting for the agent's answer` });
  turn.note('abort', message);
  turn.command({ type: 'sendAbort', slot: turn.state.slot as string });
}

export function override(turn: Turn, by: string, reason: string): void {
  const { state } = turn;
  if (state.phase !== 'Draining' && state.phase !== 'SafeToReset' && state.phase !== 'Resetting') return;
  if (state.override !== undefined) return;
  turn.set({ override: { by, reason, at: turn.around.now } });
  const left = state.verdict === undefined ? 'an unknown number of' : String(state.verdict.protected);
  turn.note('override', `${by} resets with ${left} protected connections left: ${reason}`);
  turn.phase('Resetting', `override by ${by}: ${reason}`);
  authorise(turn);
}
