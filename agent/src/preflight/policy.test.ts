import { DEFAULT_POLICY, type DrainPolicy } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { checkPolicy } from './policy.ts';

const alone: DrainPolicy = {
  ...DEFAULT_POLICY,
  rules: [{ name: 'probes', match: { peers: ['10.0.0.9'] }, nudge: false }],
};
const idlest: DrainPolicy = { ...DEFAULT_POLICY, pacing: { ...DEFAULT_POLICY.pacing, order: 'idlest' } };
const routes: DrainPolicy = { ...DEFAULT_POLICY, rules: [{ name: 'r', match: { routes: ['a'] }, protectMs: 5 }] };
const listeners: DrainPolicy = {
  ...DEFAULT_POLICY,
  rules: [
    { name: 'web', match: { listeners: ['web'] } },
    { name: 'sockets', match: { protocols: ['upgrade'] } },
    { name: 'tcp', match: { listeners: ['*'], protocols: ['tcp'], peers: ['10.0.0.9'] } },
  ],
};
const some: DrainPolicy = {
  ...DEFAULT_POLICY,
  http2: { goaway: false },
  rules: [{ name: 'web', match: { listeners: ['web'] }, nudge: true }],
};
const able = { version: '1.40.0', wasm: true, leave: true };

it.each([
  [DEFAULT_POLICY, { version: '1.38.3', wasm: false }, true, 'can be kept'],
  [alone, able, true, 'can be kept'],
  [alone, { version: '1.36.4', wasm: true }, false, 'rule probes wants some left alone'],
  [alone, { version: '1.38.3', wasm: false }, false, 'runs no filter'],
  [idlest, { version: '1.36.4', wasm: true }, true, 'the oldest leave first'],
  [idlest, able, true, 'idlest: can be kept; chosen by silence since the order'],
  [{ ...idlest, http2: { goaway: false } }, { version: '1.36.4', wasm: true }, true, 'nobody is told'],
  [some, { version: '1.36.4', wasm: true }, false, 'rule web wants some told'],
  [routes, { version: '1.38.3', wasm: false }, true, 'r match nobody'],
  [listeners, { version: '1.38.3', wasm: false }, true, 'web, sockets match nobody'],
  [listeners, able, true, 'can be kept'],
  [routes, able, true, 'can be kept'],
  // Nobody is told, so nobody is told wrongly.
  [alone, { ...able, version: '1.41.0' }, true, 'nobody is told to leave, whatever policy says'],
  [idlest, { ...able, version: '1.41.0' }, true, 'nobody has looked at Envoy 1.41.0'],
])('%# says whether the serving epoch can keep the policy', (policy, serving, ok, found) => {
  const check = checkPolicy(policy, serving);
  expect(check.ok).toBe(ok);
  expect(check.found).toContain(found);
  if (!ok) expect(check.code).toBe('SLUICE_PREFLIGHT_POLICY');
});

const http3: DrainPolicy = {
  ...DEFAULT_POLICY,
  rules: [
    { name: 'h3', match: { protocols: ['http3'] }, protectMs: 5 },
    { name: 'edge', match: { listeners: ['quic'] }, protectMs: 5 },
    { name: 'h2', match: { protocols: ['http2', 'http3'] }, protectMs: 5 },
  ],
};

it.each([
  [able, 'h3 match nobody, for no filter sees HTTP/3 connections'],
  [{ ...able, quic: ['quic'] }, 'h3, edge match nobody, for no filter sees HTTP/3 connections'],
  // Named once, though there are two reasons.
  [
    { version: '1.38.3', wasm: false },
    'h3, edge, h2 match nobody, for only the kernel lists the connections: Envoy 1.38.3 runs no filter',
  ],
])('%# says which rules are for HTTP/3 alone', (serving, found) => {
  const check = checkPolicy(http3, serving);
  expect(check.ok).toBe(true);
  expect(check.found.split('; ').at(-1)).toBe(found);
});

describe('beside HTTP/3 listeners', () => {
  const quic = { ...able, quic: ['quic', 'edge'] };
  const { pacing } = DEFAULT_POLICY;

  it.each([
    ['the default', {}],
    ['all at once', { pacing: { ...pacing, perSecond: 0 } }],
    [
      'who is waited for, and how long',
      {
        maxDrainMs: 5,
        atDeadline: 'reset' as const,
        rules: [{ name: 'r', match: { peers: ['10.0.0.9'] }, protect: false, cutOrder: 1 }],
      },
    ],
    [
      'sessions left alone',
      { rules: [{ name: 'ws', match: { protocols: ['upgrade', 'tcp'] as const }, nudge: false }] },
    ],
  ])('%s can be kept, and Envoy’s own drain is said', (_, change) => {
    expect(checkPolicy({ ...DEFAULT_POLICY, ...change }, quic)).toEqual({
      name: 'policy',
      ok: true,
      found:
        'Envoy’s own drain, without which HTTP/3 can not be handed over (quic, edge), tells TCP connections too, at its own pace',
    });
  });

  it.each([
    [{ pacing: { ...pacing, perSecond: 20 } }, 'pacing.perSecond 20'],
    [{ pacing: { ...pacing, order: 'idlest' as const } }, 'pacing.order idlest'],
    [{ pacing: { ...pacing, scope: 'fleet' as const } }, 'pacing.scope fleet'],
    [{ rules: alone.rules }, 'nudge: false of rule probes'],
    [{ http2: { goaway: false } }, 'http2.goaway false'],
  ])('what it breaks is refused by name: %j', (change, found) => {
    const policy = { ...DEFAULT_POLICY, ...change };
    const check = checkPolicy(policy, quic);
    expect(check).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_POLICY' });
    expect(check.found).toBe(
      `${found}: Envoy’s own drain, without which HTTP/3 can not be handed over (quic, edge), tells TCP connections too, at its own pace`,
    );
    expect(check.hint).toContain('HTTP/3');
    expect(checkPolicy(policy, { ...able, quic: [] })).toMatchObject({ ok: true });
  });
});
