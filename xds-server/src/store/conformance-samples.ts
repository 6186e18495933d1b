import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  type EndedConnection,
  type Phase,
  type RecordEntry,
  type RolloutEntry,
} from '@sluice/contract';
import type { UpgradeState } from '../drain/state.ts';
import { newRollout, type RolloutState } from '../rollout/state.ts';

export function sampleUpgrade(id: string, more: Partial<UpgradeState> = {}): UpgradeState {
  return {
    id,
    proxy: 'edge',
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    createdAt: 1_000,
    phase: 'Idle',
    phaseSince: 1_000,
    reason: 'recorded',
    attempts: 0,
    ...more,
  };
}

export function entry(upgradeId: string, seq: number, phase: Phase = 'Idle'): RecordEntry {
  return { upgradeId, proxy: 'edge', seq, at: 1_000 + seq, phase, event: 'phase', text: `entry ${seq}` };
}

export function end(id: string, at: number): EndedConnection {
  return {
    connection: { epoch: 1, id, peer: 'p:1', local: 'l:1', listener: 'in', protocol: 'http2', openedAt: 0 },
    at,
    how: 'left',
    lever: 'age-pressure',
    reason: 'told-to-leave',
    rule: 'default',
  };
}

export function sampleRollout(id: string, more: Partial<RolloutState> = {}): RolloutState {
  const spec = {
    selector: { proxies: ['edge-*'], labels: {} },
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    strategy: DEFAULT_STRATEGY,
    analysis: DEFAULT_ANALYSIS,
  };
  return { ...newRollout(id, spec, 1_000), ...more };
}

export function step(rolloutId: string, seq: number): RolloutEntry {
  return { rolloutId, seq, at: 1_000 + seq, phase: 'Progressing', event: 'started', text: `step ${seq}`, member: 'a' };
}

export const conflict = { code: 'UPGRADE_CONFLICT' };
