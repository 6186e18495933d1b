import {
  type Connection,
  type ExplainItem,
  type HeldConnection,
  type PacingProgress,
  type Treatment,
  treatmentOf,
} from '@sluice/contract';
import { clean, table } from '../lib/table.ts';
import { formatBytes, formatSpan } from '../lib/time.ts';
import { endsText, estimateText, waitedText } from './when.ts';

/** Why one upgrade is not over, for a person. Pure; times are epoch milliseconds. */
export function explainLines(item: ExplainItem, now: number, wide: boolean): string[] {
  const epoch = item.oldEpoch === undefined ? '' : `, old epoch ${item.oldEpoch}`;
  const lines = [
    `upgrade ${item.upgradeId} is ${item.phase}${epoch}: ${item.safe ? 'safe to reset' : 'not yet safe to reset'}`,
    ...item.why.map((why) => `  - ${why}`),
  ];
  if (item.held.length > 0) lines.push('', ...heldTable(item.held, now, wide));
  if (item.total > item.held.length) lines.push(`only ${item.held.length} of ${item.total} are shown`);
  lines.push('', ...drainLines(item, now));
  lines.push(...cutLines(item));
  if (wide) {
    for (const w of item.witnesses)
      lines.push(`witness ${w.name}: ${w.open === undefined ? `not heard, ${w.why ?? ''}` : `${w.open} open`}`);
  }
  return [...lines, `What to do: ${item.hint}`].map(clean);
}

function cutLines({ wouldCut, wouldCutTotal: total = wouldCut.length }: ExplainItem): string[] {
  if (total === 0) return ['A reset now would cut nothing.'];
  const more = total - wouldCut.length;
  // Those that are not named may come before one that is.
  const order = more > 0 ? '; those that are named, first to last:' : ', first to last:';
  const names = wouldCut.map(({ connection, reason, rule }) => {
    const { epoch, id, peer, protocol } = connection;
    return `  ${epoch}/${id}  ${peer}  ${protocol}  ${reason}  ${ruleText(rule)}`;
  });
  return [`A reset now would cut ${total}${order}`, ...names, ...(more > 0 ? [`  and ${more} more`] : [])];
}

/** When it ends, how far the telling has come, what it costs, and its limits. */
export function drainLines(item: ExplainItem, now: number): string[] {
  const { estimate, pacing, cost, policy, limit, nextChangeAt, deadlineAt } = item;
  const lines: string[] = [];
  if (estimate !== undefined && item.total > 0) lines.push(estimateText(estimate, now));
  if (pacing !== undefined) lines.push(pacingText(pacing));
  if (cost !== undefined) {
    const budget = policy?.memory?.budgetMiB ?? 0;
    const most = budget > 0 ? `; policy lets lingering epochs hold ${budget}MiB together` : '';
    lines.push(`This epoch holds ${formatBytes(cost.privateBytes)} that a reset would free${most}.`);
  }
  if (nextChangeAt !== undefined) lines.push(`Next change by itself in ${formatSpan(nextChangeAt - now)}.`);
  if (limit === 'memory') lines.push('Limit by memory: reached.');
  if (deadlineAt !== undefined) {
    const left = deadlineAt - now;
    lines.push(`Limit by time: ${left > 0 ? `in ${formatSpan(left)}` : `passed ${formatSpan(-left)} ago`}.`);
  } else if (policy?.maxDrainMs === 0) {
    lines.push('Limit by time: none.');
  }
  return lines;
}

export function pacingText({ told, left, none, perSecond, strain, cutoffAgeMs }: PacingProgress): string {
  if (none !== undefined) return `Told to leave: nobody${told === 0 ? '' : ` more, ${told} were`}: ${none}.`;
  const rate = perSecond > 0 ? ` at ${perSecond} a second` : ' all at once';
  const age = cutoffAgeMs === undefined ? '' : `; those older than ${formatSpan(cutoffAgeMs)} have been`;
  const slow = strain === undefined ? '' : `; slowed: ${strain}`;
  return left === 0
    ? `Told to leave: ${told === 0 ? 'all' : told}, nobody is left to tell${slow}.`
    : `Told to leave: ${told}, ${left} to go${rate}${age}${slow}.`;
}

/** One connection: which rule holds it and what that means. `held` is absent where only the connection is known. */
export function connectionLines(
  connection: Connection,
  context: { readonly item: ExplainItem; readonly held?: HeldConnection; readonly now: number },
): string[] {
  const { item, held, now } = context;
  const { policy } = item;
  const treatment = policy === undefined ? undefined : treatmentOf(policy, connection);
  const rule = held?.rule ?? treatment?.rule;
  const lines = [
    `${connection.peer} is connection ${connection.epoch}/${connection.id} of the old epoch (upgrade ${item.upgradeId}, ${item.phase})`,
    `  ${describe(connection, now)}`,
  ];
  if (rule !== undefined)
    lines.push(`  ${ruleText(rule)}${treatment === undefined ? '' : `: ${treatmentText(treatment)}`}`);
  lines.push(`  ${toldText(connection, treatment, held?.reason, now)}`);
  if (held === undefined) return lines.map(clean);
  lines.push(`  waited for: ${waitedText(held)} (${held.reason})`);
  if (held.until !== undefined) lines.push(`  its protection ends in ${formatSpan(Math.max(0, held.until - now))}`);
  if (held.endsAt !== undefined) lines.push(`  it ends ${endsText(held, now)}`);
  lines.push(`  a reset now would ${held.holds ? 'cut what is on it' : 'lose nothing on it'}`);
  return lines.map(clean);
}

export function ruleText(rule: string): string {
  return rule === 'default' ? 'no rule (default)' : `rule ${rule}`;
}

function treatmentText(t: Treatment): string {
  const limited =
    t.protectMs === undefined ? '' : ` no longer than ${formatSpan(t.protectMs)} from the start of the drain`;
  return [
    t.nudge ? 'told to leave' : 'not told to leave',
    t.protect ? `waited for${limited}` : 'not waited for',
    `silent HTTP/1 grace ${formatSpan(t.silentIdleGraceMs)}`,
    `cut order ${t.cutOrder}`,
    `at a limit ${t.atDeadline}`,
  ].join(', ');
}

function toldText(
  { toldAt, protocol }: Connection,
  treatment: Treatment | undefined,
  reason: HeldConnection['reason'] | undefined,
  now: number,
): string {
  if (protocol === 'upgrade' || protocol === 'tcp') return 'a session hears nothing of the drain';
  if (toldAt !== undefined) return `told to leave ${formatSpan(now - toldAt)} ago`;
  if (reason === 'no-lever')
    return 'not told to leave: nobody knows what makes a connection of this Envoy version leave';
  return treatment?.nudge === false ? 'not told to leave' : 'not known to have been told to leave yet';
}

function describe(c: Connection, now: number): string {
  const where = c.listener === '' ? c.local : c.listener;
  return [
    `${c.protocol} on ${where}`,
    ...(c.route === undefined ? [] : [`route ${c.route}`]),
    `${formatSpan(now - c.openedAt)} old`,
    ...(c.inFlight === undefined ? [] : [`${c.inFlight} in flight`]),
    ...(c.lastActivityAt === undefined ? [] : [`last active ${formatSpan(now - c.lastActivityAt)} ago`]),
  ].join(', ');
}

function heldTable(held: readonly HeldConnection[], now: number, wide: boolean): string[] {
  const header = [
    'CONNECTION',
    'PEER',
    'PROTOCOL',
    'AGE',
    'RULE',
    'WAITED FOR',
    'WHY',
    'ENDS',
    ...(wide ? ['LISTENER', 'ROUTE'] : []),
  ];
  const rows = held.map((h) => [
    `${h.connection.epoch}/${h.connection.id}`,
    h.connection.peer,
    h.connection.protocol,
    formatSpan(now - h.connection.openedAt),
    h.rule ?? 'default',
    waitedText(h),
    h.reason,
    endsText({ ...(h.until !== undefined && { endsAt: h.until }), ...h }, now),
    ...(wide ? [h.connection.listener, h.connection.route ?? ''] : []),
  ]);
  return table(header, rows).split('\n');
}
