import { describe, expect, it } from 'vitest';
import { DEFAULT_POLICY } from './policy.ts';
import { mergePolicy, parsePolicy } from './policy-parse.ts';

describe('parsePolicy', () => {
  it('replaces only what is given', () => {
    expect(parsePolicy(undefined)).toEqual(DEFAULT_POLICY);
    expect(parsePolicy({ http1: { silentIdleGraceMs: 5 }, atDeadline: 'ask' })).toEqual({
      ...DEFAULT_POLICY,
      http1: { silentIdleGraceMs: 5 },
      atDeadline: 'ask',
    });
    expect(mergePolicy({ ...DEFAULT_POLICY, maxDrainMs: 7 }, { tcp: { protect: false } })).toMatchObject({
      maxDrainMs: 7,
      tcp: { protect: false },
    });
  });

  it.each([
    [3, 'policy: expected an object, found 3'],
    [[], 'policy: expected an object, found []'],
    [{ http3: {} }, 'policy.http3: no such field'],
    [{ http2: { goAway: true } }, 'policy.http2.goAway: no such field'],
    [{ http1: 5 }, 'policy.http1: expected an object, found 5'],
    [{ http1: { silentIdleGraceMs: '60s' } }, 'policy.http1.silentIdleGraceMs: expected whole milliseconds'],
    [{ maxDrainMs: -1 }, 'policy.maxDrainMs: expected whole milliseconds'],
    [{ maxDrainMs: 2 ** 31 }, 'policy.maxDrainMs: expected whole milliseconds'],
    [{ tcp: { protect: 'yes' } }, 'policy.tcp.protect: expected true or false, found "yes"'],
    [
      { rules: [{ name: 'r', match: { peers: ['10.0.0.0/8/9'] } }] },
      'peers[0]: expected an IP address or a CIDR block',
    ],
    [{ atDeadline: 'cut' }, 'policy.atDeadline: expected one of wait, ask, reset, found "cut"'],
  ])('refuses %j by the path of the field', (value, message) => {
    expect(() => parsePolicy(value)).toThrow(message);
  });
});
