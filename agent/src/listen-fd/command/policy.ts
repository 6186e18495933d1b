import { type CheckResult, DEFAULT_POLICY, type DrainPolicy, globMatches } from '@sluice/contract';
import { failed, passed } from '../../preflight/result.ts';

/**
 * Whether a proxy that is not Envoy can be drained as policy says. It tells its connections itself, all of them and in its
 * own way, so a policy that asks for a pace, an order, or for some to be left alone is refused. Pure. `given`: complete; a
 * pace that is the default's was not asked for.
 */
export function checkCommandPolicy(given: DrainPolicy): CheckResult {
  const { perSecond, order, scope } = given.pacing;
  const asked: string[] = [];
  if (perSecond !== DEFAULT_POLICY.pacing.perSecond && perSecond !== 0) asked.push(`pacing.perSecond ${perSecond}`);
  if (order !== DEFAULT_POLICY.pacing.order) asked.push(`pacing.order ${order}`);
  if (scope !== DEFAULT_POLICY.pacing.scope) asked.push(`pacing.scope ${scope}`);
  const rules = given.rules.filter(({ nudge }) => nudge === false).map(({ name }) => name);
  if (rules.length > 0) asked.push(`nudge: false of rule ${rules.join(', ')}`);
  if (asked.length > 0) {
    const found = `${asked.join(', ')}: pacing needs Envoy; this proxy tells its connections by itself`;
    return failed('policy', 'PREFLIGHT_POLICY', found, 'leave it out of this proxy’s policy');
  }
  const blind = given.rules.filter(
    ({ match: { routes, protocols } }) =>
      routes !== undefined || (protocols !== undefined && !protocols.some((one) => globMatches(one, 'tcp'))),
  );
  const names = blind.map(({ name }) => name).join(', ');
  return passed(
    'policy',
    blind.length === 0 ? 'can be kept' : `${names} match nobody: the kernel knows TCP sessions only`,
  );
}
