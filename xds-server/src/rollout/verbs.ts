import { isRolloutOver, type RolloutVerb, SluiceError } from '@sluice/contract';
import { countsOf } from './analysis.ts';
import type { Turn } from './turn.ts';

/** A person's verb. Each may be said twice. Throws PHASE_REFUSED where it has no meaning. */
export function verb(turn: Turn, what: RolloutVerb, by: string): void {
  const { phase } = turn.state;
  const over = isRolloutOver(phase);
  const running = phase === 'Progressing' || phase === 'Paused';
  const refuse = (hint: string): never => {
    throw new SluiceError('PHASE_REFUSED', `rollout ${turn.state.id} is ${phase}: it can not ${what}`, { hint });
  };
  switch (what) {
    case 'pause':
      if (!running) {
        refuse('only one that progresses can pause');
        return;
      }
      if (turn.state.pause?.by !== 'user') pause(turn, { by: 'user', reason: `by ${by}` });
      return;
    case 'resume':
      if (!running) {
        refuse(over ? 'start another one' : 'it ends by itself');
        return;
      }
      resume(turn, by);
      return;
    case 'promote':
      if (!running) {
        refuse(over ? 'start another one' : 'it ends by itself');
        return;
      }
      if (turn.state.pause === undefined) return;
      if (turn.state.pause.by !== 'stage') refuse('resume it first: it was not the end of a stage that paused it');
      nextStage(turn, `promoted by ${by}`);
      return;
    case 'rollback':
      if (phase === 'RollingBack' || phase === 'RolledBack') return;
      rollBack(turn, `by ${by}`);
      return;
    case 'abort':
      if (phase === 'Aborting' || phase === 'Aborted') return;
      if (!running) {
        refuse(over ? 'use rollback to flip back what it changed' : 'it ends by itself');
        return;
      }
      unpause(turn);
      renew(turn, 'starting');
      turn.phase('Aborting', `by ${by}`);
      return;
  }
}

export function pause(turn: Turn, how: { by: 'user' | 'analysis' | 'stage'; reason: string; until?: number }): void {
  turn.set({ pause: { ...how, at: turn.now } });
  if (turn.state.phase === 'Paused') turn.note('paused', how.reason);
  turn.phase('Paused', how.reason);
}

/** What went wrong so far is forgiven: failed members get another turn, and only what comes from now on is judged. */
function resume(turn: Turn, by: string): void {
  const { pause: paused, members } = turn.state;
  if (paused === undefined) return;
  if (paused.by === 'stage') {
    nextStage(turn, `resumed by ${by}`);
    return;
  }
  for (const one of members)
    if (one.state === 'failed') turn.member(one.name, { state: 'waiting', reason: 'once more' });
  turn.set({ baseline: countsOf(members), judgedFrom: turn.now });
  unpause(turn);
  unmeasure(turn);
  turn.phase('Progressing', `resumed by ${by}`);
}

export function nextStage(turn: Turn, reason: string): void {
  unpause(turn);
  turn.set({ stage: turn.state.stage + 1 });
  turn.note('stage', `stage ${turn.state.stage + 1} begins: ${reason}`);
  turn.phase('Progressing', reason);
}

export function rollBack(turn: Turn, reason: string): void {
  unpause(turn);
  turn.set({ rollbackBy: reason });
  renew(turn, 'starting');
  for (const one of turn.state.members) if (one.state === 'stuck') turn.member(one.name, { state: 'upgraded' });
  turn.phase('RollingBack', reason);
}

/** Orders of another kind follow: the first one goes out at once. */
export function renew(turn: Turn, ...states: readonly string[]): void {
  for (const one of turn.state.members) {
    if (states.includes(one.state)) turn.member(one.name, { attempts: 0, sentAt: 0 });
  }
}

/** What was measured is of before. */
function unmeasure(turn: Turn): void {
  const { measured: _, unmeasured: __, ...rest } = turn.state;
  turn.state = rest;
}

function unpause(turn: Turn): void {
  const { pause: _, ...rest } = turn.state;
  turn.state = rest;
}
