import { MAX_DURATION_MS, MAX_RULES } from '@sluice/contract';

const rule = (more: object = {}) => ({ name: 'r', match: {}, ...more });

/** Policies that `parsePolicy` and the API server both take. */
export const GOOD_POLICIES: readonly object[] = [
  {},
  { http1: { silentIdleGraceMs: 5 }, atDeadline: 'ask' },
  { http2: { goaway: false }, upgrades: { protect: false }, tcp: { protect: true }, maxDrainMs: MAX_DURATION_MS },
  {
    maxDrainMs: 0,
    memory: { budgetMiB: 512 },
    pacing: { perSecond: 0, order: 'idlest', scope: 'fleet', adapt: false },
  },
  {
    rules: [
      rule({
        match: {
          listeners: ['in*'],
          protocols: ['http2', 'tcp'],
          routes: ['r'],
          peers: ['10.0.0.0/8', '10.1.2.3', 'fd00::/8', '::1'],
        },
        nudge: false,
        protect: true,
        protectMs: 1,
        silentIdleGraceMs: 0,
        cutOrder: 7,
        atDeadline: 'reset',
      }),
      rule({ name: 'other' }),
    ],
  },
  { rules: Array.from({ length: MAX_RULES }, (_, n) => rule({ name: `r${n}` })) },
];

/** Policies that both refuse, and what the API server says of them. */
export const BAD_POLICIES: readonly (readonly [object, RegExp])[] = [
  [{ http3: {} }, /http3/],
  [{ http2: { goAway: true } }, /goAway/],
  [{ http1: 5 }, /http1/],
  [{ http1: { silentIdleGraceMs: '60s' } }, /silentIdleGraceMs/],
  [{ http1: { silentIdleGraceMs: 1.5 } }, /silentIdleGraceMs/],
  [{ maxDrainMs: -1 }, /maxDrainMs/],
  [{ maxDrainMs: MAX_DURATION_MS + 1 }, /maxDrainMs/],
  [{ tcp: { protect: 'yes' } }, /protect/],
  [{ atDeadline: 'cut' }, /atDeadline.*"wait", "ask", "reset"/],
  [{ memory: { budgetMiB: 1_048_577 } }, /budgetMiB/],
  [{ pacing: { order: 'newest' } }, /order/],
  [{ pacing: { scope: 'world' } }, /scope/],
  [{ rules: {} }, /rules/],
  [{ rules: [{ match: {} }] }, /name: Required/],
  [{ rules: [{ name: 'r' }] }, /match: Required/],
  [{ rules: [rule({ name: '' })] }, /name/],
  [{ rules: [rule({ name: 'x'.repeat(257) })] }, /name: Too long/],
  [{ rules: [rule(), rule()] }, /the names of rules are unique/],
  [{ rules: Array.from({ length: MAX_RULES + 1 }, (_, n) => rule({ name: `r${n}` })) }, /must have at most 64 items/],
  [{ rules: [rule({ match: { listeners: [] } })] }, /listeners/],
  [{ rules: [rule({ match: { protocols: ['smtp'] } })] }, /protocols/],
  [{ rules: [rule({ match: { peers: ['shop'] } })] }, /expected an IP address or a CIDR block/],
  [{ rules: [rule({ match: { peers: ['10.0.0.0/8/9'] } })] }, /expected an IP address or a CIDR block/],
  [{ rules: [rule({ match: { peers: ['10.0.0.0/33'] } })] }, /expected an IP address or a CIDR block/],
  [{ rules: [rule({ cutOrder: -1 })] }, /cutOrder/],
];
