import { type Connection, DEFAULT_POLICY, type ProxyView, type RecordEntry, type UpgradeView } from '@sluice/contract';

/** What a controller would answer about one proxy in the middle of an upgrade. */
export const NOW = 1_000_000;
export const connection: Connection = {
  epoch: 1,
  id: '7',
  peer: '10.0.0.1:5\u001b[2J',
  local: '10.0.0.2:80',
  listener: 'in',
  protocol: 'upgrade',
  openedAt: NOW,
};
export const held = { connection, protected: true, reason: 'upgrade' as const, holds: true, rule: 'default' };
export const verdict = {
  safe: false,
  summary: 'one WebSocket is left',
  at: NOW,
  total: 2,
  protected: 1,
  held: [held],
  holding: 1,
  witnesses: [],
  pastDeadline: false,
};
export const proxy: ProxyView = {
  proxy: 'edge',
  connected: true,
  agents: [],
  epochs: [
    { epoch: 1, slot: '1', state: 'draining', version: '1.38.3', pid: 1, startedAt: NOW, drainingSince: NOW, verdict },
    { epoch: 2, slot: '1', state: 'serving', version: '1.40.0', pid: 2, startedAt: NOW },
  ],
  serving: { epoch: 2, version: '1.40.0', slot: '1' },
  upgrades: ['u1'],
  xds: [],
};
export const upgrade = (change: Partial<UpgradeView> = {}): UpgradeView => ({
  id: 'u1',
  proxy: 'edge',
  phase: 'Draining',
  reason: 'one WebSocket is left',
  target: { to: '1.40.0' },
  policy: DEFAULT_POLICY,
  createdAt: NOW,
  phaseSince: NOW,
  verdict,
  ...change,
});
export const record = (seq: number, phase: UpgradeView['phase']): RecordEntry => ({
  upgradeId: 'u1',
  proxy: 'edge',
  seq,
  at: NOW,
  phase,
  event: 'phase',
  text: `now ${phase}`,
});

/** Answers by `METHOD path`; a function makes a stream of watch items. */
