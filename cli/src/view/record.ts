import type { EndEstimate, EndedConnection } from '@sluice/contract';
import type { UpgradeRecord } from '../lib/record.ts';
import { clean, table } from '../lib/table.ts';
import { formatSpan } from '../lib/time.ts';
import { ruleText } from './explain.ts';
import { recordLine } from './upgrade.ts';

/** So many cut connections are named; the other formats have all. */
const NAMED = 200;

/** The record of one upgrade for a person. Pure. */
export function recordLines(record: UpgradeRecord): string[] {
  const { upgrade, phases, steps, ended } = record;
  const lines = [...headLines(record), ''];
  if (phases.length > 0) {
    const rows = phases.map(({ phase, at, ms }) => [phase, time(at), ms === undefined ? '-' : spanText(ms)]);
    lines.push(...table(['PHASE', 'BEGAN', 'LASTED'], rows).split('\n'), '');
  }
  const bad = upgrade.checks?.filter((c) => !c.ok) ?? [];
  if (upgrade.checks !== undefined)
    lines.push(`checks: ${upgrade.checks.length - bad.length} of ${upgrade.checks.length} ok`);
  for (const check of bad) lines.push(`  ${check.name}: ${check.found}`);
  if (upgrade.override !== undefined) {
    const { by, reason, at } = upgrade.override;
    lines.push(`override by ${by} at ${time(at)}: ${reason}`);
  }
  if (upgrade.failure !== undefined) lines.push(`failed: ${upgrade.failure.code}: ${upgrade.failure.message}`);
  lines.push(...drainLines(record), ...estimateLines(record), ...accuracyLines(record), ...endedLines(record));
  if (steps.length > 0) lines.push('', ...steps.map(recordLine));
  if (ended.dropped > 0) lines.push(`${ended.dropped} more connections ended and were not kept one by one`);
  return lines.map(clean);
}

function headLines({ upgrade, phases }: UpgradeRecord): string[] {
  const { id, proxy, from = '?', to, target, phase, method, order, epoch, oldEpoch } = upgrade;
  const first = upgrade.createdAt ?? phases[0]?.at;
  const last = phases.at(-1)?.at ?? upgrade.resetAt;
  const took = first !== undefined && last !== undefined ? ` after ${spanText(last - first)}` : '';
  const epochs = oldEpoch === undefined ? '' : `; epoch ${oldEpoch} gave way to ${epoch ?? 'another one'}`;
  const head = `upgrade ${id} of ${proxy}: ${from} -> ${to ?? target?.to ?? '?'}${phase === undefined ? '' : `, ${phase}${took}`}`;
  const applied =
    order?.appliedAt === undefined ? 'not applied' : `applied ${time(order.appliedAt)} by ${order.via ?? '?'}`;
  const orders = order === undefined ? '' : `; drain order ${order.version} ${applied}`;
  return [head, `method ${method ?? '?'}${epochs}${orders}`, ...policyLines(upgrade)];
}

function policyLines({ policy }: UpgradeRecord['upgrade']): string[] {
  if (policy === undefined) return [];
  const { maxDrainMs, atDeadline, memory, pacing, rules = [] } = policy;
  const parts = [
    maxDrainMs === 0 ? 'no limit by time' : `limit ${spanText(maxDrainMs)}`,
    ...(memory !== undefined && memory.budgetMiB > 0 ? [`limit ${memory.budgetMiB}MiB`] : []),
    `at a limit ${atDeadline}`,
    ...(pacing === undefined
      ? []
      : [pacing.perSecond === 0 ? 'all told at once' : `${pacing.perSecond} told a second, ${pacing.order} first`]),
    rules.length === 0 ? 'no rules' : `rules ${rules.map(({ name }) => name).join(', ')}`,
  ];
  return [`policy: ${parts.join('; ')}`];
}

function drainLines({ upgrade: { drainStartedAt, safeToResetAt, resetAt } }: UpgradeRecord): string[] {
  if (drainStartedAt === undefined) return [];
  const safe = safeToResetAt === undefined ? '' : `, safe to reset after ${spanText(safeToResetAt - drainStartedAt)}`;
  const reset = resetAt === undefined ? '' : `, ended after ${spanText(resetAt - drainStartedAt)}`;
  return [`drain: from ${time(drainStartedAt)}${safe}${reset}`];
}

function estimateLines({ estimate }: UpgradeRecord): string[] {
  if (estimate === undefined) return [];
  const { first, endedAt, lateMs } = estimate;
  const likely = first.endsAt === undefined ? 'no end in sight' : `over in ${spanText(first.endsAt - first.at)}`;
  const late = first.endsLate === undefined ? '' : `, ${spanText(first.endsLate - first.at)} at most likely`;
  const off =
    lateMs === undefined ? '' : ` (${spanText(Math.abs(lateMs))} ${lateMs < 0 ? 'sooner' : 'later'} than likely)`;
  const seen = first.observed < 1 ? 'no end seen before' : `by ${Math.round(first.observed)} ends seen before`;
  return [`estimate at ${time(first.at)}: ${likely}${late}, ${seen}; it took ${spanText(endedAt - first.at)}${off}`];
}

function accuracyLines({ accuracy }: UpgradeRecord): string[] {
  if (accuracy === undefined) return [];
  const { connections, medianErrorMs, byLatest } = accuracy;
  const all = connections === 1 ? '1 connection' : `${connections} connections`;
  return [
    `estimates of ${all} that ended as they would: median error ${spanText(medianErrorMs)}; ${byLatest} had ended by the latest that was said`,
  ];
}

function endedLines({ upgrade, ended }: UpgradeRecord): string[] {
  const { connections } = upgrade;
  const lines: string[] = [];
  if (connections !== undefined) {
    lines.push(`old connections: ${connections.old}, ${connections.drained} drained, ${connections.cut.length} cut`);
    if (connections.why !== undefined) lines.push(`ended before its verdict was safe: ${connections.why}`);
  }
  if (ended.counts.length > 0) {
    const rows = [...ended.counts]
      .sort((a, b) => b.count - a.count)
      .map((one) => [one.how, one.lever, one.protocol, one.rule, String(one.count)]);
    lines.push('', ...table(['HOW', 'LEVER', 'PROTOCOL', 'RULE', 'COUNT'], rows).split('\n'));
  }
  const cut = ended.items.filter(({ how }) => how === 'cut' || how === 'crashed');
  if (cut.length > 0) {
    lines.push('', 'cut:');
    for (const one of cut.slice(0, NAMED)) lines.push(`  ${endedLine(one, upgrade)}`);
    if (cut.length > NAMED) lines.push(`  and ${cut.length - NAMED} more; --format csv has all`);
  }
  return lines;
}

const WHY: Record<NonNullable<EndedConnection['released']>, string> = {
  policy: 'policy does not wait for it',
  'protection-over': 'its protection was over',
  deadline: 'the time limit',
  memory: 'memory: the lingering epochs held more than policy allows',
};

/** How one connection of an old epoch ended. `upgrade`: whose override there was, or why it ended before its time. */
export function endedLine(
  { connection, at, how, lever, rule, reason, released, estimate }: EndedConnection,
  upgrade: Pick<UpgradeRecord['upgrade'], 'override' | 'connections'> = {},
): string {
  const { epoch, id, peer, protocol } = connection;
  const held = reason === undefined ? '' : `, last waited for as ${reason}`;
  const cause = how === 'cut' ? ` by ${released === undefined ? wordOf(upgrade) : (WHY[released] ?? released)}` : '';
  return `${epoch}/${id}  ${peer}  ${protocol}  ${ruleText(rule)}: ${how} at ${time(at)}${cause} (lever ${lever}${held})${lateText(estimate)}`;
}

function lateText({ endsAt, lateMs }: Partial<EndEstimate> = {}): string {
  if (endsAt === undefined || lateMs === undefined) return '';
  return `, estimated for ${time(endsAt)}: ${spanText(Math.abs(lateMs))} ${lateMs < 0 ? 'sooner' : 'later'}`;
}

function wordOf({ override, connections }: Pick<UpgradeRecord['upgrade'], 'override' | 'connections'>): string {
  if (override !== undefined) return `the override of ${override.by}`;
  return connections?.why === undefined ? 'an override' : 'the end of its agent';
}

function time(at: number): string {
  return new Date(at).toISOString().slice(11, 23);
}

/** A record says tenths of a second where a look at the present would not. */
function spanText(ms: number): string {
  return ms >= 1_000 && ms < 60_000 ? `${(ms / 1_000).toFixed(1)}s` : formatSpan(ms);
}
