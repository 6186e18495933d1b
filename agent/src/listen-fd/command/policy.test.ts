import { completePolicy, DEFAULT_POLICY } from '@sluice/contract';
import { expect, it } from 'vitest';
import { checkCommandPolicy } from './policy.ts';

it('the default can be kept, and limits, memory and rules by peers too', () => {
  const policy = completePolicy({
    ...DEFAULT_POLICY,
    maxDrainMs: 5,
    atDeadline: 'reset',
    memory: { budgetMiB: 64 },
    rules: [{ name: 'probes', match: { peers: ['10.0.0.1'], protocols: ['tcp'] }, protect: false }],
  });
  expect(checkCommandPolicy(policy)).toMatchObject({ ok: true, found: 'can be kept' });
});

it.each([
  [{ pacing: { ...DEFAULT_POLICY.pacing, perSecond: 20 } }, 'pacing.perSecond 20'],
  [{ pacing: { ...DEFAULT_POLICY.pacing, order: 'idlest' as const } }, 'pacing.order idlest'],
  [{ pacing: { ...DEFAULT_POLICY.pacing, scope: 'fleet' as const } }, 'pacing.scope fleet'],
  [{ rules: [{ name: 'old', match: {}, nudge: false }] }, 'nudge: false of rule old'],
])('what only Envoy can do is refused by name: %j', (change, found) => {
  const check = checkCommandPolicy({ ...DEFAULT_POLICY, ...change });
  expect(check).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_POLICY' });
  expect(check.found).toContain(`${found}: pacing needs Envoy`);
});

it('a rule that matches nobody is said', () => {
  const rules = [{ name: 'downloads', match: { routes: ['d*'] } }];
  expect(checkCommandPolicy({ ...DEFAULT_POLICY, rules })).toMatchObject({
    ok: true,
    found: /^downloads match nobody/,
  });
});
