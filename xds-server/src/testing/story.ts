import { DEFAULT_POLICY } from '@sluice/contract';
import { step } from '../drain/machine.ts';
import type { Command, Surroundings, UpgradeEvent, UpgradeState } from '../drain/state.ts';
import { epochStatus, verdict } from './fake-agent.ts';

/** An upgrade of two epochs told as events, for the tests of the machine. */
export const T0 = 1_000_000;

export function fresh(more: Partial<UpgradeState> = {}): UpgradeState {
  return {
    id: 'u1',
    proxy: 'edge',
    target: { to: '1.40.0' },
    policy: DEFAULT_POLICY,
    createdAt: T0,
    phase: 'Idle',
    phaseSince: T0,
    reason: 'recorded',
    attempts: 0,
    ...more,
  };
}

export function around(now = T0 + 1_000, connected = ['1']): Surroundings {
  return { now, connected: new Set(connected), slotOf: () => '1' };
}

export const turn: UpgradeEvent = { type: 'turn', slot: '1' };
export const passed: UpgradeEvent = { type: 'preflight', ok: true, checks: [], from: '1.38.3', to: '1.40.0' };
export const serving: UpgradeEvent = {
  type: 'serving',
  epoch: 1,
  oldEpoch: 0,
  from: '1.38.3',
  to: '1.40.0',
  at: T0,
  method: 'hot-restart',
};
export const judged = (safe: boolean, at = T0 + 5_000): UpgradeEvent => ({
  type: 'verdict',
  epoch: 0,
  verdict: verdict(safe, { at }),
});
export const reset: UpgradeEvent = { type: 'resetDone', epoch: 0, at: T0 + 9_000, old: 2, drained: 2, cut: [] };
export const lists = (upgradeId: string) => ({
  before: [epochStatus(0, 'serving')],
  during: [epochStatus(0, 'serving'), epochStatus(1, 'starting', { upgradeId })],
  after: [epochStatus(0, 'draining', { upgradeId }), epochStatus(1, 'serving', { upgradeId })],
  over: [epochStatus(1, 'serving', { upgradeId })],
});
export const hello = (epochs: ReturnType<typeof lists>['before']): UpgradeEvent => ({
  type: 'epochs',
  slot: '1',
  epochs,
  hello: true,
});

/** Runs events one after the other, 100 ms apart. */
export function run(events: readonly UpgradeEvent[], from = fresh(), place?: (now: number) => Surroundings) {
  let state = from;
  let now = Math.max(T0, state.phaseSince);
  const commands: Command[] = [];
  const entries: string[] = [];
  for (const event of events) {
    now += 100;
    const result = step(state, event, place?.(now) ?? around(now));
    state = result.state;
    commands.push(...result.commands);
    entries.push(...result.entries.map((entry) => entry.event));
  }
  return { state, commands, entries, types: commands.map((command) => command.type) };
}

/** Version of the order that the first steps of a good upgrade give. */
export const FIRST = run([turn, passed, serving]).state.order?.version ?? 0;
