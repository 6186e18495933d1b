import { DEFAULT_POLICY, type DrainPolicy } from '@sluice/contract';
import { expect, it } from 'vitest';
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
