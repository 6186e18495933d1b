import type { ClientResult } from '../harness/load/mix.ts';
import { bar, duration, number, type Paint, pad, right } from './format.ts';
import type { UpgradeResult } from './result.ts';

export interface ReportInput {
  readonly upgrades: readonly UpgradeResult[];
  /** Whole run. */
  readonly clients: readonly ClientResult[];
  readonly seconds: number;
  /** Requests that the upstream was asked about, and what it contradicted. */
  readonly mismatches: number;
  readonly agentRss?: number;
}

/** The closing report, for a person. Pure. */
export function report(input: ReportInput, paint: Paint): string {
  const lines: string[] = ['', paint.bold('Sluice: what happened'), ''];
  for (const [i, upgrade] of input.upgrades.entries()) lines.push(...upgradePart(i + 1, upgrade, paint), '');
  lines.push(...clientsPart(input, paint), '', ...closing(input, paint), '');
  return lines.join('\n');
}

function upgradePart(n: number, upgrade: UpgradeResult, paint: Paint): string[] {
  const { requests, connections, drainStartedAt: start } = upgrade;
  const total = Math.max(upgrade.resetAt, upgrade.safeToResetAt, upgrade.lastOldConnectionEndedAt) - start;
  const moment = (name: string, at: number, note = '') => {
    const after = at - start;
    return `   ${pad(name, 26)}${right(`+${duration(Math.max(0, after))}`, 10)}  ${paint.accent(bar(after, total, 24))}${note}`;
  };
  const verdict = upgrade.safeToResetAt - upgrade.lastOldConnectionEndedAt;
  const failed = requests.failed === 0 ? paint.good('0 failed') : paint.bad(`${number(requests.failed)} FAILED`);
  const refused =
    requests.refusedBeforeSent === 0
      ? ''
      : paint.dim(`, ${requests.refusedBeforeSent} not sent by their library after GOAWAY`);
  const cut = connections.cut === 0 ? paint.good('0 cut') : paint.bad(`${connections.cut} CUT`);
  return [
    `${paint.bold(`${n}. Envoy ${upgrade.from} → ${upgrade.to}`)}  ${paint.dim(`by ${upgrade.method}`)}`,
    `   ${pad('requests meanwhile', 26)}${right(number(requests.total), 10)}  ${failed}${refused}`,
    `   ${pad('old connections', 26)}${right(number(connections.old), 10)}  ${connections.drained} drained, ${cut}`,
    moment('drain ordered', start),
    upgrade.goawayIdleMs === null
      ? `   ${pad('idle HTTP/2 got GOAWAY', 26)}${paint.bad(right('never', 10))}`
      : moment('idle HTTP/2 got GOAWAY', start + upgrade.goawayIdleMs),
    moment('last old connection ended', upgrade.lastOldConnectionEndedAt),
    moment('safe to reset', upgrade.safeToResetAt, `  ${paint.dim(`verdict ${verdictText(verdict)}`)}`),
    moment('old epoch ended', upgrade.resetAt),
  ];
}

function verdictText(ms: number): string {
  return ms < 0 ? `${duration(-ms)} before: what was left was not protected` : `${duration(ms)} later`;
}

function clientsPart({ clients, seconds }: ReportInput, paint: Paint): string[] {
  const most = Math.max(1, ...clients.map(({ total }) => total));
  const rows = clients.map(({ name, total, failed }) => {
    const loss = failed === 0 ? paint.good(right('0', 8)) : paint.bad(right(number(failed), 8));
    return `   ${pad(name, 14)}${right(number(total), 12)}${loss}   ${paint.dim(bar(total, most, 24))}`;
  });
  const head = `   ${pad('client', 14)}${right('requests', 12)}${right('failed', 8)}`;
  return [paint.bold(`The whole run, ${duration(seconds * 1000)}`), paint.dim(head), ...rows];
}

function closing(input: ReportInput, paint: Paint): string[] {
  const total = input.clients.reduce((sum, { total }) => sum + total, 0);
  const failures = input.clients.flatMap(({ name, failures }) => failures.map((each) => ({ name, ...each })));
  const failed = input.clients.reduce((sum, { failed }) => sum + failed, 0);
  const lines = failures.slice(0, 10).map(({ name, what, id }) => paint.bad(`   ${name}: ${what} (${id})`));
  if (failures.length > 10) lines.push(paint.bad(`   and ${failures.length - 10} more`));
  const verdict =
    failed === 0
      ? paint.good(`Every one of ${number(total)} requests was answered rightly, exactly once.`)
      : paint.bad(`${number(failed)} of ${number(total)} requests failed.`);
  lines.push(paint.bold(verdict));
  lines.push(
    paint.dim(`Clients never retry; each request has an id, and the upstream's list of ids was held against theirs.`),
  );
  if (input.agentRss !== undefined) {
    lines.push(paint.dim(`The agent's resident memory: ${Math.round(input.agentRss / 1_048_576)} MB.`));
  }
  return lines;
}
