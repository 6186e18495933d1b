import type { CheckResult, MethodName, MethodWish } from '@sluice/contract';
import { failed, passed } from '../preflight/result.ts';

/** What one method's own checks found for one handover. */
export interface Candidate {
  readonly name: MethodName;
  readonly checks: readonly CheckResult[];
}

export interface MethodChoice {
  /** Absent: no method can. */
  readonly method?: MethodName;
  /** The checks that count: the chosen method's, or of every method that was asked and can not. */
  readonly checks: readonly CheckResult[];
  /** Which was chosen and why. */
  readonly check: CheckResult;
}

/**
 * Which method hands over. A method that was asked for by name is taken or refused, never replaced by another one; `auto`
 * takes the first of the candidates, in their order, that can.
 */
export function chooseMethod(wish: MethodWish, candidates: readonly Candidate[]): MethodChoice {
  const asked = wish === 'auto' ? candidates : candidates.filter(({ name }) => name === wish);
  const at = asked.findIndex(can);
  const chosen = asked[at];
  if (chosen) {
    const before = asked.slice(0, at).map(whyNot).join('; ');
    const why = wish === 'auto' ? (before === '' ? 'the first choice' : `not ${before}`) : 'as asked for';
    return { method: chosen.name, checks: chosen.checks, check: passed('method', `${chosen.name}: ${why}`) };
  }
  const reasons = asked.length === 0 ? `${wish} is no way to hand over here` : asked.map(whyNot).join('; ');
  const found = wish === 'auto' ? `no method can: ${reasons}` : reasons;
  return { checks: asked.flatMap(({ checks }) => checks), check: failed('method', 'PREFLIGHT_METHOD', found) };
}

function can({ checks }: Candidate): boolean {
  return checks.every(({ ok }) => ok);
}

/** `hot-restart (hot restart version: serving 11.104, target 12.7)` */
function whyNot({ name, checks }: Candidate): string {
  const reasons = checks.filter(({ ok }) => !ok).map((check) => `${check.name}: ${check.found}`);
  return `${name} (${reasons.join(', ')})`;
}
