import type { ProxyView, UpgradeView } from '@sluice/contract';
import { expect, it } from 'vitest';
import { paint } from './format.ts';
import { draw } from './view.ts';

it('shows the load, the epochs side by side, and why the old one is held', () => {
  const proxy = {
    epochs: [
      { epoch: 0, version: '1.38.3', state: 'draining', pid: 10 },
      { epoch: 1, version: '1.40.0', state: 'serving', pid: 11 },
    ],
  } as unknown as ProxyView;
  const upgrade = {
    phase: 'Draining',
    reason: 'epoch 1 serves, epoch 0 drains',
    verdict: { total: 3, protected: 2, held: [{ reason: 'upgrade' }, { reason: 'upgrade' }, { reason: 'tcp' }] },
  } as unknown as UpgradeView;
  const scene = { now: 9_000, startedAt: 1_000, total: 4321, failed: 0, perSecond: 990, step: 1, steps: 2, peak: 6 };
  expect(draw({ ...scene, proxy, upgrade }, paint(false)).join('\n')).toMatchInlineSnapshot(`
    "Sluice  upgrade 1 of 2  8.0 s  4,321 requests, 990/s, 0 failed
      epoch  0  Envoy 1.38.3  draining  pid 10
      epoch  1  Envoy 1.40.0  serving   pid 11
      Draining: epoch 1 serves, epoch 0 drains
      ███████████████··············· 3 old, 2 protected
      2 upgrade, 1 tcp"
  `);
});
