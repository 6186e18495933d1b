import {
  DEFAULT_RULE,
  type EpochStatus,
  isTerminal,
  type ProxyView,
  type UpgradeView,
  type Verdict,
} from '@sluice/contract';
import { clean } from '../lib/table.ts';
import { formatSpan } from '../lib/time.ts';
import { pacingText } from './explain.ts';
import { type Model, shownUpgrades } from './model.ts';
import { estimateText } from './when.ts';

/** Protected connections named below a draining epoch; `sluice connections` lists them all. */
const NAMED = 5;

/** The tree of `get PROXY` and `get -w`: proxies, their epochs, what holds each old one, their upgrades. */
export function treeLines(model: Model, now: number): string[] {
  const proxies = [...model.proxies.values()].sort((a, b) => a.proxy.localeCompare(b.proxy));
  if (proxies.length === 0) return [model.synced ? 'no proxies yet: no agent has connected' : 'connecting'];
  return proxies.flatMap((proxy) => proxyLines(proxy, shownUpgrades(model, proxy.proxy), now)).map(clean);
}

function proxyLines(proxy: ProxyView, upgrades: readonly UpgradeView[], now: number): string[] {
  const serving = proxy.serving ? `serves ${proxy.serving.version}` : 'nothing serves';
  const children: string[][] = [
    ...proxy.epochs.filter((e) => e.state !== 'ended').map((e) => epochLines(e, upgrades, now)),
    ...upgrades.map((u) => upgradeLines(u, now)),
  ];
  return [`${proxy.proxy}  ${serving}${proxy.connected ? '' : '  (agent away)'}`, ...branch(children)];
}

function epochLines(epoch: EpochStatus, upgrades: readonly UpgradeView[], now: number): string[] {
  const since = epoch.drainingSince ?? epoch.startedAt;
  const mark = { serving: '●', draining: '◐', starting: '○', ended: '·', crashed: '✖' }[epoch.state] ?? '?';
  const head = `${mark} epoch ${epoch.epoch}  ${epoch.version}  ${epoch.state} for ${formatSpan(now - since)}  slot ${epoch.slot}`;
  // The upgrade's verdict is the fresher one: an agent sends its epochs only when one changes its state.
  const verdict = upgrades.find((u) => u.oldEpoch === epoch.epoch && !isTerminal(u.phase))?.verdict ?? epoch.verdict;
  if (verdict === undefined) return [head];
  const held = verdict.held.filter((h) => h.protected);
  const names = held.slice(0, NAMED).map((h) => {
    const { peer, protocol } = h.connection;
    const rule = h.rule === undefined || h.rule === DEFAULT_RULE ? '' : `  rule ${h.rule}`;
    return [
      `${peer}  ${protocol}  ${h.reason}${h.until === undefined ? '' : ` for ${formatSpan(h.until - now)} more`}${rule}`,
    ];
  });
  if (verdict.protected > names.length && names.length > 0)
    names.push([`and ${verdict.protected - names.length} more`]);
  return [
    `${head}  ${verdict.protected} protected of ${verdict.total}`,
    ...branch([[verdict.summary], ...progress(verdict, now), ...names]),
  ];
}

/** How far the telling has come, and when the drain will be over. */
function progress({ pacing, estimate, total }: Verdict, now: number): string[][] {
  return [
    ...(pacing !== undefined && pacing.left > 0 ? [[pacingText(pacing)]] : []),
    ...(estimate !== undefined && total > 0 ? [[estimateText(estimate, now)]] : []),
  ];
}

function upgradeLines(upgrade: UpgradeView, now: number): string[] {
  const way = `${upgrade.from ?? '?'} -> ${upgrade.to ?? upgrade.target.to}`;
  const span = formatSpan((isTerminal(upgrade.phase) ? upgrade.phaseSince : now) - upgrade.createdAt);
  const text = `upgrade ${upgrade.id}  ${way}  ${upgrade.phase} ${isTerminal(upgrade.phase) ? 'after' : 'for'} ${span}`;
  const counts = upgrade.connections;
  const children = [[upgrade.reason]];
  if (counts) children.push([`${counts.old} old connections: ${counts.drained} drained, ${counts.cut.length} cut`]);
  return [text, ...branch(children)];
}

function branch(children: readonly (readonly string[])[]): string[] {
  return children.flatMap((lines, index) => {
    const last = index === children.length - 1;
    return lines.map((line, row) => (row === 0 ? (last ? '└─ ' : '├─ ') : last ? '   ' : '│  ') + line);
  });
}
