import {
  type CheckResult,
  canChoose,
  type DrainPolicy,
  globMatches,
  needsMarks,
  type PolicyRule,
  tellsAnybody,
  whyWeakest,
} from '@sluice/contract';
import { failed, passed } from './result.ts';

/** What is known of the epoch that is to drain. */
export interface Drainable {
  readonly version: string;
  /** It runs the filter. */
  readonly wasm: boolean;
  /** Single connections can be told to leave. */
  readonly leave?: boolean;
}

/**
 * Whether the serving epoch can be drained as policy says. Whoever policy wants left alone must not be told with the
 * others, so a rule that this Envoy can not keep is refused; an order of leaving that it can not keep is only said. Of an
 * Envoy that the levers table does not know nobody is told (checkLevers says it), so nobody is told wrongly.
 */
export function checkPolicy(policy: DrainPolicy, serving: Drainable): CheckResult {
  const tells = tellsAnybody(serving.version);
  const marks = serving.wasm && serving.leave === true && canChoose(serving.version, 'mark');
  const why = serving.wasm ? `Envoy ${serving.version} has no call for it` : `Envoy ${serving.version} runs no filter`;
  const alone = policy.rules
    .filter(({ nudge }) => nudge !== undefined && nudge !== policy.http2.goaway)
    .map((rule) => rule.name);
  if (tells && alone.length > 0 && !marks) {
    const wants = policy.http2.goaway ? 'left alone' : 'told';
    const found = `rule ${alone.join(', ')} wants some ${wants}, and connections can not be told one by one: ${why}`;
    return failed('policy', 'PREFLIGHT_POLICY', found);
  }
  const notes: string[] = tells
    ? []
    : [`nobody is told to leave, whatever policy says: ${whyWeakest(serving.version)}`];
  if (tells && needsMarks(policy) && !marks)
    notes.push(`${policy.http2.goaway ? 'the oldest leave first, not the idlest' : 'nobody is told to leave'}: ${why}`);
  const blind = serving.wasm ? [] : policy.rules.filter(matchesNobody).map((rule) => rule.name);
  if (blind.length > 0)
    notes.push(`${blind.join(', ')} match nobody, for only the kernel lists the connections: ${why}`);
  return passed('policy', notes.length === 0 ? 'can be kept' : notes.join('; '));
}

/** The kernel knows peers, and TCP from what is not; no listener's name, no route, no other protocol. */
function matchesNobody({ match }: PolicyRule): boolean {
  const { listeners, protocols, routes } = match;
  return (
    routes !== undefined ||
    (listeners !== undefined && !listeners.some((glob) => globMatches(glob, ''))) ||
    (protocols !== undefined && !protocols.some((one) => one === 'unknown' || one === 'tcp'))
  );
}
