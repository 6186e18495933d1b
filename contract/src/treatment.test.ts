import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Connection } from './connections.ts';
import { DEFAULT_POLICY, type PolicyRule } from './policy.ts';
import { globMatches, needsMarks, treatmentOf } from './treatment.ts';

const connection = (more: Partial<Connection> = {}): Connection => ({
  epoch: 1,
  id: '1',
  peer: '10.1.2.3:4711',
  local: '10.0.0.1:80',
  listener: 'ingress_http',
  protocol: 'http2',
  openedAt: 0,
  ...more,
});
const withRules = (...rules: PolicyRule[]) => ({ ...DEFAULT_POLICY, rules });

describe('treatmentOf', () => {
  it('is the default by protocol where no rule matches', () => {
    expect(treatmentOf(DEFAULT_POLICY, connection())).toEqual({
      rule: 'default',
      nudge: true,
      protect: true,
      silentIdleGraceMs: 60_000,
      cutOrder: 100,
      atDeadline: 'wait',
    });
    const policy = { ...DEFAULT_POLICY, upgrades: { protect: false }, http2: { goaway: false } };
    expect(treatmentOf(policy, connection({ protocol: 'upgrade' })).protect).toBe(false);
    expect(treatmentOf(policy, connection({ protocol: 'http2' })).nudge).toBe(false);
  });

  it.each([
    [{}, {}, true],
    [{ listeners: ['ingress*'] }, {}, true],
    [{ listeners: ['egress'] }, {}, false],
    [{ protocols: ['http1', 'http2'] }, {}, true],
    [{ protocols: ['tcp'] }, {}, false],
    [{ peers: ['10.1.0.0/16'] }, {}, true],
    [{ peers: ['10.2.0.0/16', '10.1.2.3'] }, {}, true],
    [{ peers: ['10.2.0.0/16'] }, {}, false],
    [{ peers: ['fd00::/8'] }, { peer: '[fd00::1]:99' }, true],
    [{ peers: ['fd00::/8'] }, {}, false],
    [{ peers: ['10.0.0.0/8'] }, { peer: '/run/client.sock' }, false],
    [{ routes: ['api-*'] }, {}, false],
    [{ routes: ['api-*'] }, { route: 'api-orders' }, true],
    [{ routes: ['api-*'], listeners: ['egress'] }, { route: 'api-orders' }, false],
  ] as const)('matches %j against %j: %s', (match, more, hit) => {
    const policy = withRules({ name: 'r', match, protect: false });
    expect(treatmentOf(policy, connection(more)).rule).toBe(hit ? 'r' : 'default');
  });

  it('takes the first rule that matches, and what it leaves out from the defaults', () => {
    const policy = withRules(
      { name: 'first', match: { listeners: ['ingress*'] }, protectMs: 5_000 },
      { name: 'second', match: {}, nudge: false },
    );
    expect(treatmentOf(policy, connection())).toMatchObject({ rule: 'first', nudge: true, protectMs: 5_000 });
    expect(treatmentOf(policy, connection({ listener: 'x' }))).toMatchObject({ rule: 'second', nudge: false });
    expect(needsMarks(policy)).toBe(true);
    expect(needsMarks(DEFAULT_POLICY)).toBe(false);
  });
});

it('says the same of a connection whoever was asked about before', () => {
  const name = fc.constantFrom('', 'a', 'ab', 'b', 'a-');
  const one = fc.record({
    listener: name,
    route: fc.option(name, { nil: undefined }),
    peer: fc.constantFrom('10.0.0.1:1', '10.0.0.2:1', '[fd00::1]:1', '/unix'),
    protocol: fc.constantFrom('http1' as const, 'http2' as const, 'tcp' as const),
  });
  const rules: PolicyRule[] = [
    { name: 'route', match: { routes: ['a*'], listeners: ['b'] } },
    { name: 'listener', match: { listeners: ['a', 'b'] } },
    { name: 'peer', match: { peers: ['10.0.0.1', 'fd00::/8'], protocols: ['tcp', 'http1'] } },
  ];
  fc.assert(
    fc.property(fc.array(one, { maxLength: 40 }), (all) => {
      const policy = withRules(...rules);
      const connections = all.map(({ route, ...rest }) =>
        connection({ ...rest, ...(route !== undefined && { route }) }),
      );
      const apart = connections.map((c) => treatmentOf(withRules(...rules), c));
      expect(connections.map((c) => treatmentOf(policy, c))).toEqual(apart);
    }),
  );
});

it('without GOAWAY only what is known to be HTTP/1 is told, and only where single ones can be', () => {
  const quiet = { ...DEFAULT_POLICY, http2: { goaway: false } };
  const idlest = { ...quiet, pacing: { ...quiet.pacing, order: 'idlest' as const } };
  const told = (policy: typeof quiet) =>
    (['http1', 'http2', 'unknown'] as const).map((protocol) => treatmentOf(policy, connection({ protocol })).nudge);
  expect(told(quiet)).toEqual([false, false, false]);
  expect(told(idlest)).toEqual([true, false, false]);
  expect(needsMarks(quiet)).toBe(false);
  expect(needsMarks({ ...quiet, rules: [{ name: 'r', match: {}, nudge: true }] })).toBe(true);
});

it('a glob matches what its texts make up', () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b', '.', '-') });
  fc.assert(
    fc.property(
      fc.array(text, { minLength: 1, maxLength: 4 }),
      fc.array(text, { minLength: 4, maxLength: 4 }),
      (parts, fill) => {
        const glob = parts.join('*');
        const whole = parts.map((part, n) => (n === 0 ? part : `${fill[n]}${part}`)).join('');
        expect(globMatches(glob, whole)).toBe(true);
        const asRegExp = new RegExp(
          `^${parts
            .map((p) => p.replace('.', '\\.'))
            .map((p) => p.replaceAll(/(?<!\\)\./g, '\\.'))
            .join('.*')}$`,
        );
        const other = fill.join('');
        expect(globMatches(glob, other)).toBe(asRegExp.test(other));
      },
    ),
  );
});
