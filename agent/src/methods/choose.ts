import { type CheckResult, type MethodName, type MethodWish, SluiceError } from '@sluice/contract';
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
  const reasons = asked.length === 0 ? noneHere(candidates, wish) : asked.map(whyNot).join('; ');
  const found = wish === 'auto' ? `no method can: ${reasons}` : reasons;
  return { checks: asked.flatMap(({ checks }) => checks), check: failed('method', 'PREFLIGHT_METHOD', found) };
}

/** The one of that name. Throws PREFLIGHT_METHOD where it is a way of another kind of proxy. */
export function methodNamed<M extends { readonly name: MethodName }>(methods: readonly M[], name: MethodName): M {
  const found = methods.find((method) => method.name === name);
  if (!found) throw new SluiceError('PREFLIGHT_METHOD', noneHere(methods, name));
  return found;
}

function noneHere(methods: readonly { readonly name: MethodName }[], name: string): string {
  return `expected ${methods.map((one) => one.name).join(' or ')} for this kind of proxy, found ${name}`;
}

function can({ checks }: Candidate): boolean {
  return checks.every(({ ok }) => ok);
}

/** `hot-restart (hot restart version: serving 11.104, target 12.7)` */
function whyNot({ name, checks }: Candidate): string {
  const reasons = checks.filter(({ ok }) => !ok).map((check) => `${check.name}: ${check.found}`);
  return `${name} (${reasons.join(', ')})`;
}
