import { isRolloutOver, type RolloutMember } from '@sluice/contract';
import { blindness, judge, watchedUntil } from './analysis.ts';
import { hasNamedCanary, inCanary, maxUnavailableOf, partitionOf, stageGoals } from './numbers.ts';
import { observe } from './observe.ts';
import type { Measured, Observed, RolloutEvent, RolloutPlan, RolloutState } from './state.ts';
import { Turn } from './turn.ts';
import { nextStage, pause, renew, rollBack, verb } from './verbs.ts';

/**
 * One step of a rollout: what is stored, what the fleet says, what happened and the clock go in; what is to be stored and
 * then to be done comes out. Knows nothing of agents or Pods. The same step again changes nothing.
 *
 *   Progressing <-> Paused (a person, the analysis, the end of a stage)
 *      |  |  \--- rollback, failed analysis ---> RollingBack ---> RolledBack, or Failed where a flip back failed
 *      |  \------ abort -----------------------> Aborting ------> Aborted
 *      v
 *    Done (all but the partition)   -- rollback of one that has ended: RollingBack
 *
 * Throws PHASE_REFUSED for a verb that has no meaning now.
 */
export function plan(
  state: RolloutState,
  fleet: readonly Observed[],
  now: number,
  event: RolloutEvent = { type: 'tick' },
): RolloutPlan {
  const turn = new Turn(state, fleet, now);
  // One that is over takes nothing in any more, but can be rolled back; a partition can be taken back when it is Done.
  const reopened = event.type === 'spec' && state.phase === 'Done';
  if (isRolloutOver(state.phase) && event.type !== 'rollback' && !reopened) {
    if (event.type === 'pause' || event.type === 'resume' || event.type === 'promote' || event.type === 'abort')
      verb(turn, event.type, event.by);
    return turn.done();
  }
  observe(turn);
  switch (event.type) {
    case 'tick':
      break;
    case 'resumed':
      renew(turn, 'starting', 'flipping');
      break;
    case 'crashed':
      crashed(turn, event.member);
      break;
    case 'measured':
      measured(turn, event.measured);
      break;
    case 'unmeasured':
      if (turn.state.unmeasured === undefined) turn.note('unmeasured', event.reason);
      turn.set({ unmeasured: event.reason });
      break;
    case 'spec':
      turn.set({ spec: { ...event.spec, target: state.spec.target } });
      if (reopened) reopen(turn);
      break;
    default:
      verb(turn, event.type, event.by);
  }
  if (turn.state.phase === 'Progressing' || turn.state.phase === 'Paused') analyse(turn);
  if (turn.state.phase === 'Paused') stageOver(turn);
  if (turn.state.phase === 'Progressing') progress(turn);
  if (turn.state.phase === 'Aborting') giveUp(turn);
  if (turn.state.phase === 'RollingBack') flipBack(turn);
  // That one starts for too long is nothing that happens.
  if (turn.state.members.some((one) => one.state === 'starting')) turn.wake(turn.now + LOOK_MS);
  return turn.done();
}

const LOOK_MS = 60_000;

/** Goes on where the partition, or members that came since, leave something to do. */
function reopen(turn: Turn): void {
  const { spec, members } = turn.state;
  const waiting = members.filter((one) => one.state === 'waiting').length;
  if (waiting > partitionOf(spec.strategy, members.length)) turn.phase('Progressing', 'there is more to upgrade');
}

function crashed(turn: Turn, name: string): void {
  const member = turn.state.members.find((one) => one.name === name);
  if (member === undefined) return;
  turn.member(name, { crashes: member.crashes + 1 });
  turn.note('crashed', `${name}: its new Envoy crashed`, name);
}

function measured(turn: Turn, word: Measured): void {
  // Asked before somebody forgave what it tells of.
  if (word.at < (turn.state.judgedFrom ?? 0)) return;
  const { unmeasured, ...rest } = turn.state;
  turn.state = { ...rest, measured: word };
  if (unmeasured !== undefined) turn.note('measured', 'the source of metrics is heard again');
}

/** A limit that is passed ends new starts at once; who paused by hand is not overruled. */
function analyse(turn: Turn): void {
  const { pause: paused, spec } = turn.state;
  if (paused?.by === 'user' || paused?.by === 'analysis') return;
  const failed = judge(turn.state);
  if (failed === undefined) return;
  turn.note('analysis', failed);
  if (spec.analysis.onFailure === 'rollback') rollBack(turn, `analysis: ${failed}`);
  else pause(turn, { by: 'analysis', reason: `analysis: ${failed}` });
}

function stageOver(turn: Turn): void {
  const { pause: paused } = turn.state;
  if (paused?.until === undefined) return;
  if (turn.now < paused.until) turn.wake(paused.until);
  else nextStage(turn, 'the pause is over');
}

const busy = (turn: Turn, { state }: RolloutMember): boolean =>
  state === 'starting' || state === 'flipping' || (turn.state.spec.strategy.until === 'reset' && state === 'draining');

/**
 * Who can not be counted on: in an upgrade, or not serving for whatever reason. SidecarSet leaves those out that were not
 * ready before; Deployment and StatefulSet count them, and so do we: a fleet that is weak already is not weakened further.
 */
function unavailable(turn: Turn): number {
  return turn.state.members.filter((one) => busy(turn, one) || !turn.fleet.get(one.name)?.available).length;
}

function progress(turn: Turn): void {
  for (;;) {
    const { spec, members, stage } = turn.state;
    const goals = stageGoals(
      spec,
      members.map((one) => one.name),
    );
    const last = stage >= goals.length - 1;
    const goal = goals[Math.min(stage, goals.length - 1)] ?? 0;
    again(turn);
    const named = stage === 0 && hasNamedCanary(spec) && members.some((one) => inCanary(spec, one.name));
    const eligible = (one: RolloutMember): boolean => !named || inCanary(spec, one.name);
    const touched = turn.state.members.filter((one) => one.state !== 'waiting' && eligible(one)).length;
    const touchedAll = turn.state.members.filter((one) => one.state !== 'waiting').length;
    const total = members.length;
    const left = Math.min(goal - touched, total - partitionOf(spec.strategy, total) - touchedAll);
    const blind = blindness(turn.state);
    if (left > 0 && blind === undefined)
      begin(turn, Math.min(left, maxUnavailableOf(spec.strategy, total) - unavailable(turn)), eligible);
    const inStage = turn.state.members.filter((one) => busy(turn, one)).length;
    if (left > 0 || inStage > 0) {
      turn.set({ reason: [told(turn, goals, left), ...(blind === undefined ? [] : [blind])].join('; ') });
      return;
    }
    const until = watchedUntil(turn.state);
    if ((turn.state.measured?.at ?? 0) < until) {
      const watched = `its members are watched for ${spec.analysis.windowMs / 1_000} s`;
      turn.set({ reason: `stage ${stage + 1} of ${goals.length}; ${blind ?? watched}` });
      return;
    }
    if (last) {
      finish(turn);
      return;
    }
    const text = `stage ${stage + 1} of ${goals.length} is done`;
    turn.note('stage', text);
    const { promotion, pauseBetweenMs } = spec.strategy;
    if (promotion === 'manual') {
      pause(turn, { by: 'stage', reason: `${text}: waits to be promoted` });
      return;
    }
    if (pauseBetweenMs > 0) {
      const until = turn.now + pauseBetweenMs;
      turn.wake(until);
      pause(turn, { by: 'stage', reason: `${text}: pauses for ${pauseBetweenMs / 1_000} s`, until });
      return;
    }
    nextStage(turn, text);
  }
}

/** Orders that have not arrived: they were stored, and then the controller died or the fleet did not answer. */
function again(turn: Turn): void {
  for (const { name, state, upgradeId, failures } of turn.state.members) {
    if (state !== 'starting' || upgradeId === undefined) continue;
    if (turn.fleet.get(name)?.step?.id === upgradeId) continue;
    if (!turn.unheard(name)) turn.order({ type: 'start', member: name, id: upgradeId });
    else {
      const reason = 'its order was given again and again and not taken';
      turn.member(name, { state: 'failed', failures: failures + 1, reason });
      turn.note('failed', `${name}: ${reason}`, name);
      turn.wake(turn.now);
    }
  }
}

/** Starts up to `slots` members: each time one of the zone that had the fewest turns so far. */
function begin(turn: Turn, slots: number, eligible: (member: RolloutMember) => boolean): void {
  if (slots <= 0) return;
  const zones = new Map<string, { turns: number; readonly names: string[] }>();
  for (const one of turn.state.members) {
    const zone = zones.get(one.zone) ?? { turns: 0, names: [] };
    zones.set(one.zone, zone);
    if (one.state !== 'waiting') zone.turns++;
    else if (eligible(one) && isThere(turn.fleet.get(one.name))) zone.names.push(one.name);
  }
  const sorted = [...zones].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, zone]) => ({ ...zone, next: 0 }));
  const { stage } = turn.state;
  for (let n = 0; n < slots; n++) {
    const open = sorted.filter((zone) => zone.next < zone.names.length);
    const fewest = Math.min(...open.map((zone) => zone.turns));
    const zone = open.find((one) => one.turns === fewest);
    const name = zone?.names[zone.next];
    if (zone === undefined || name === undefined) return;
    zone.next++;
    zone.turns++;
    const id = turn.newId();
    const { serving } = turn.fleet.get(name) as Observed;
    const from = serving === undefined ? {} : { from: serving };
    turn.member(name, { state: 'starting', stage, upgradeId: id, reason: 'ordered', startedAt: turn.now, ...from });
    renewOne(turn, name);
    turn.note('started', `${name} is upgraded to ${turn.state.spec.target.to} (stage ${stage + 1})`, name);
    turn.order({ type: 'start', member: name, id });
  }
}

function renewOne(turn: Turn, name: string): void {
  turn.member(name, { attempts: 0, sentAt: 0 });
}

const isThere = (seen: Observed | undefined): boolean => seen?.reachable === true && seen.available;

function told(turn: Turn, goals: readonly number[], left: number): string {
  const { members, stage } = turn.state;
  const waiting = members.filter((one) => one.state === 'starting').map((one) => one.name);
  const away = members.filter((one) => !isThere(turn.fleet.get(one.name))).map((one) => one.name);
  const parts = [`stage ${stage + 1} of ${goals.length}`];
  if (waiting.length > 0) parts.push(`${names(waiting)} ${waiting.length === 1 ? 'is' : 'are'} being upgraded`);
  if (left > 0) parts.push(`${left} more in this stage`);
  if (away.length > 0) parts.push(`${names(away)} not available`);
  return parts.join('; ');
}

function names(all: readonly string[]): string {
  return all.length <= 3 ? all.join(', ') : `${all.slice(0, 3).join(', ')} and ${all.length - 3} more`;
}

/** All have had their turn: over when their old epochs are. A partition kept back is a good end, as with StatefulSet. */
function finish(turn: Turn): void {
  const { members } = turn.state;
  const draining = members.filter((one) => one.state === 'draining');
  if (draining.length > 0) {
    turn.set({ reason: `all serve; old epochs drain: ${names(draining.map((one) => one.name))}` });
    return;
  }
  const count = (state: string): number => members.filter((one) => one.state === state).length;
  const parts = [`${count('upgraded') + count('current')} of ${members.length} have the target`];
  if (count('failed') > 0) parts.push(`${count('failed')} failed, as the analysis allows`);
  if (count('waiting') > 0) parts.push(`${count('waiting')} kept back by partition`);
  turn.phase('Done', parts.join('; '));
}

/**
 * Ends what does not serve yet. One whose order never arrived has nothing to be ended; but an order that was given a moment ago may be on its
 * way, or not be seen yet: whoever is taken for never begun and begins all the same would keep the target.
 */
function endStarting(turn: Turn): boolean {
  for (const { name, state, upgradeId, attempts = 0 } of turn.state.members) {
    if (state !== 'starting' || upgradeId === undefined) continue;
    const begun = turn.fleet.get(name)?.step?.id === upgradeId;
    if (!begun && attempts > 0 && turn.now >= turn.dueAt(name)) {
      turn.member(name, { state: 'waiting', reason: 'never begun' });
    } else turn.order({ type: 'abort', member: name, id: upgradeId });
  }
  return turn.state.members.some((one) => one.state === 'starting');
}

function giveUp(turn: Turn): void {
  if (endStarting(turn)) return;
  const kept = turn.state.members.filter((one) => one.state === 'draining' || one.state === 'upgraded').length;
  turn.phase('Aborted', `${kept} have the target and keep it`);
}

/** Newest first, within maxUnavailable; who does not serve anyway can be flipped at once (SidecarSet's rule). */
function flipBack(turn: Turn): void {
  const starting = endStarting(turn);
  const { spec } = turn.state;
  const limit = maxUnavailableOf(spec.strategy, turn.state.members.length);
  for (const { name, state, upgradeId, backId } of turn.state.members) {
    if (state !== 'flipping' || upgradeId === undefined || backId === undefined) continue;
    if (turn.fleet.get(name)?.step?.id === backId) continue;
    if (!turn.unheard(name)) turn.order({ type: 'flip', member: name, id: upgradeId, backId });
    else {
      const reason = 'its flip back was ordered again and again and not taken';
      turn.member(name, { state: 'stuck', reason });
      turn.note('stuck', `${name}: ${reason}`, name);
    }
  }
  const toFlip = turn.state.members.filter((one) => hasTarget(turn, one));
  // One that only drains serves already: it is in nobody's way, also where `until` is `reset`.
  const isOut = ({ name, state }: RolloutMember): boolean =>
    state === 'starting' || state === 'flipping' || !turn.fleet.get(name)?.available;
  let out = turn.state.members.filter(isOut).length;
  for (const { name, upgradeId } of toFlip.toSorted((a, b) => order(b) - order(a))) {
    const seen = turn.fleet.get(name);
    if (upgradeId === undefined || seen?.reachable !== true) continue;
    if (seen.available && out >= limit) continue;
    if (seen.available) out++;
    const backId = turn.newId();
    turn.member(name, { state: 'flipping', backId, reason: 'its flip back is ordered' });
    renewOne(turn, name);
    turn.note('flipping', `${name} is flipped back`, name);
    turn.order({ type: 'flip', member: name, id: upgradeId, backId });
  }
  const left = turn.state.members.filter((one) => one.state === 'flipping' || hasTarget(turn, one));
  if (starting || left.length > 0) {
    const reason = turn.state.rollbackBy ?? '';
    turn.set({ reason: `${reason}; ${left.length} to be flipped back: ${names(left.map((one) => one.name))}` });
    return;
  }
  const stuck = turn.state.members.filter((one) => one.state === 'stuck').map((one) => one.name);
  if (stuck.length > 0) turn.phase('Failed', `could not be flipped back: ${names(stuck)}`);
  else turn.phase('RolledBack', turn.state.rollbackBy ?? 'flipped back');
}

/** Also one that counts as failed, and took over all the same: later than it should, or before it went down. */
function hasTarget(turn: Turn, { name, state, from, servedAt }: RolloutMember): boolean {
  if (state !== 'failed' || from === undefined) return state === 'draining' || state === 'upgraded';
  const serving = turn.fleet.get(name)?.serving;
  return serving !== from && (serving !== undefined || servedAt !== undefined);
}

/** Number of the order that changed it. */
function order({ upgradeId = '' }: RolloutMember): number {
  return Number(upgradeId.slice(upgradeId.lastIndexOf('-') + 1));
}
