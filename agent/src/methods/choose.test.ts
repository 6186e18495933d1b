import type { CheckResult, MethodName, MethodWish } from '@sluice/contract';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Candidate, chooseMethod, methodNamed } from './choose.ts';

const good: CheckResult = { name: 'a', ok: true, found: 'fine' };
const bad = (name: string, found: string): CheckResult => ({
  name,
  ok: false,
  found,
  code: 'SLUICE_X',
  hint: 'mend it',
});
const hot = (...checks: CheckResult[]): Candidate => ({ name: 'hot-restart', checks });
const reuse = (...checks: CheckResult[]): Candidate => ({ name: 'reuse-port', checks });

const NONE_HERE = 'expected hot-restart or reuse-port for this kind of proxy, found listen-fd';

it('takes hot restart where it can', () => {
  expect(chooseMethod('auto', [hot(good), reuse(good)])).toMatchObject({
    method: 'hot-restart',
    check: { ok: true, found: 'hot-restart: the first choice' },
  });
});

it('falls to reuse-port and says why; what hot restart lacks does not count', () => {
  const chosen = chooseMethod('auto', [hot(good, bad('hot restart version', '11.104 and 12.7')), reuse(good)]);
  expect(chosen).toEqual({
    method: 'reuse-port',
    checks: [good],
    check: {
      name: 'method',
      ok: true,
      found: 'reuse-port: not hot-restart (hot restart version: 11.104 and 12.7)',
    },
  });
});

it('refuses with the reasons of every method when none can', () => {
  const chosen = chooseMethod('auto', [hot(bad('v', 'x')), reuse(bad('unix', 'y'), bad('uid', 'z'))]);
  expect(chosen.method).toBeUndefined();
  expect(chosen.check).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_METHOD' });
  expect(chosen.check.found).toBe('no method can: hot-restart (v: x); reuse-port (unix: y, uid: z)');
  expect(chosen.checks).toHaveLength(3);
});

it('takes or refuses a method that was asked for, never another one', () => {
  expect(chooseMethod('reuse-port', [hot(good), reuse(good)]).method).toBe('reuse-port');
  expect(chooseMethod('hot-restart', [hot(bad('v', 'x')), reuse(good)])).toMatchObject({ check: { ok: false } });
  expect(chooseMethod('listen-fd', [hot(good), reuse(good)]).check.found).toBe(NONE_HERE);
});

it('a method by name: the one, or a refusal by the names that there are', () => {
  const methods = [hot(), reuse()];
  expect(methodNamed(methods, 'reuse-port')).toBe(methods[1]);
  expect(() => methodNamed(methods, 'listen-fd')).toThrow(
    expect.objectContaining({ code: 'PREFLIGHT_METHOD', message: NONE_HERE }),
  );
});

it('chooses only what passed all of its checks, the first such, and refuses otherwise', () => {
  const check = fc.boolean().map((ok) => (ok ? good : bad('b', 'c')));
  const candidate = (name: MethodName) =>
    fc.array(check, { maxLength: 4 }).map((checks): Candidate => ({ name, checks }));
  const candidates = fc.tuple(candidate('hot-restart'), candidate('reuse-port'));
  const wish = fc.constantFrom<MethodWish>('auto', 'hot-restart', 'reuse-port', 'listen-fd');
  fc.assert(
    fc.property(wish, candidates, (wanted, all) => {
      const able = all.filter((c) => (wanted === 'auto' || c.name === wanted) && c.checks.every(({ ok }) => ok));
      const chosen = chooseMethod(wanted, all);
      expect(chosen.method).toBe(able[0]?.name);
      expect(chosen.check.ok).toBe(chosen.method !== undefined);
      if (chosen.method !== undefined) expect(chosen.checks.every(({ ok }) => ok)).toBe(true);
    }),
  );
});
