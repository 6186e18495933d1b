import type { RolloutEntry } from '@sluice/contract';
import type { Condition } from './conditions.ts';
import type { Happening } from './events.ts';
import type { HotUpgradeStatus } from './hotupgrade.ts';

/** Entries of a rollout's record that are told as events, and whether something is wrong. What each Pod does stands in the record. */
const TOLD: Readonly<Record<string, readonly [reason: string, type: Happening['type']]>> = {
  stage: ['Stage', 'Normal'],
  analysis: ['AnalysisFailed', 'Warning'],
  failed: ['PodFailed', 'Warning'],
  stuck: ['PodStuck', 'Warning'],
  crashed: ['ProxyCrashed', 'Warning'],
  gone: ['PodGone', 'Normal'],
  unmeasured: ['MetricsAway', 'Warning'],
};
const BAD_PHASES = ['RollingBack', 'RolledBack', 'Failed'];

/** The event for an entry of the record. undefined: none. */
export function eventOf({ event, phase, text }: RolloutEntry): Happening | undefined {
  if (event === 'phase') {
    return { type: BAD_PHASES.includes(phase) ? 'Warning' : 'Normal', reason: phase, action: 'Rollout', note: text };
  }
  const [reason, type] = TOLD[event] ?? [];
  return reason === undefined || type === undefined ? undefined : { type, reason, action: 'Rollout', note: text };
}

/** What is good when it is True; of the others the opposite. */
const GOOD = ['Accepted', 'AgentsHeard', 'SchemaCurrent'];
const SILENT = ['Progressing', 'Complete', 'Failed', 'AgentsHeard'];

/** Events for conditions that became bad, or bad for another reason. What the record tells already is not told twice. */
export function conditionEvents(before: HotUpgradeStatus | undefined, after: HotUpgradeStatus): Happening[] {
  const known = new Map(before?.conditions?.map((one) => [one.type, one]));
  const bad = ({ type, status }: Condition): boolean => (status === 'True') !== GOOD.includes(type);
  return (after.conditions ?? [])
    .filter((one) => bad(one) && !SILENT.includes(one.type))
    .filter((one) => {
      const old = known.get(one.type);
      return old === undefined || old.status !== one.status || old.reason !== one.reason;
    })
    .map(({ type, reason, message }) => ({
      type: type === 'Deleting' ? 'Normal' : 'Warning',
      reason,
      action: 'Reconcile',
      note: message,
    }));
}
