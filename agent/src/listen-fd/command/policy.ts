import { type CheckResult, type DrainPolicy, globMatches } from '@sluice/contract';
import { pacingAsked } from '../../preflight/policy.ts';
import { failed, passed } from '../../preflight/result.ts';

/**
 * Whether a proxy that is not Envoy can be drained as policy says. It tells its connections itself, all of them and in its
 * own way, so a policy that asks for a pace, an order, or for some to be left alone is refused. Pure. `given`:
 * complete.
 */
export function checkCommandPolicy(given: DrainPolicy): CheckResult {
  const asked = pacingAsked(given);
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
