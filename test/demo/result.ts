import type { UpgradeView } from '@sluice/contract';
import type { LoggedConnection } from '../harness/load/connections.ts';
import type { IdleRecord } from '../harness/load/http1.ts';
import type { ClientResult } from '../harness/load/mix.ts';

/** One upgrade as the JSON file has it; times in epoch ms. */
export interface UpgradeResult {
  readonly from: string;
  readonly to: string;
  readonly method: string;
  readonly requests: {
    readonly total: number;
    readonly failed: number;
    readonly refusedBeforeSent: number;
    readonly byProtocol: Readonly<Record<string, { readonly total: number; readonly failed: number }>>;
  };
  readonly connections: { readonly old: number; readonly drained: number; readonly cut: number };
  readonly drainStartedAt: number;
  /** From the clients' clock. */
  readonly lastOldConnectionEndedAt: number;
  readonly safeToResetAt: number;
  readonly resetAt: number;
  /** Drain order -> GOAWAY at the slowest idle HTTP/2 client; null = one of them never got any. */
  readonly goawayIdleMs: number | null;
}

export interface DemoResult {
  readonly upgrades: readonly UpgradeResult[];
  /** Failed requests of the whole run, also outside of the upgrades. */
  readonly failed: number;
}

/** Nothing failed, nothing was cut, and each idle HTTP/2 client was told to leave. */
export function wellDone({ upgrades, failed }: DemoResult): boolean {
  return (
    failed === 0 && upgrades.every(({ connections, goawayIdleMs }) => connections.cut === 0 && goawayIdleMs !== null)
  );
}

/** What was noted while an upgrade ran, before its counts are known. */
export interface Noted {
  readonly view: UpgradeView;
  readonly from: string;
  readonly to: string;
  /** Start of the new process. */
  readonly startedAt: number;
  /** Client ports of the old process's connections, from the kernel, and when they were read. */
  readonly oldPorts: ReadonlySet<number>;
  readonly oldPortsAt: number;
}

/** During an upgrade: from the start of the new process to the end of the last old connection + 1 s. */
export const WINDOW_TAIL_MS = 1000;

/**
 * The clients' connections that the old process held when it was told to drain: those opened before the new process was
 * there, and those that the kernel showed on it a moment later. Ports are used again, so the time has to fit too.
 */
export function oldConnections(noted: Noted, log: readonly LoggedConnection[]): LoggedConnection[] {
  const order = Math.min(noted.view.drainStartedAt ?? noted.oldPortsAt, noted.oldPortsAt);
  return log.filter(({ localPort, openedAt, endedAt = Infinity }) => {
    if (openedAt < noted.startedAt && endedAt >= order) return true;
    return noted.oldPorts.has(localPort) && openedAt <= noted.oldPortsAt && endedAt >= noted.oldPortsAt;
  });
}

/** When the last of them ended; the moment of reading when none was left then; undefined while one is open. */
export function lastEnd(noted: Noted, log: readonly LoggedConnection[]): number | undefined {
  const ends = oldConnections(noted, log).map(({ endedAt }) => endedAt ?? Infinity);
  const last = Math.max(noted.oldPortsAt, ...ends);
  return Number.isFinite(last) ? last : undefined;
}

/** Slowest GOAWAY of the idle clients that the old process held. */
export function goawayDelay(noted: Noted, records: readonly IdleRecord[]): number | null {
  const order = noted.view.drainStartedAt ?? noted.oldPortsAt;
  const idle = records.filter(({ openedAt, endedAt }) => openedAt < noted.startedAt && (endedAt ?? Infinity) >= order);
  if (idle.length === 0) return null;
  const delays = idle.map(({ goawayAt }) => (goawayAt === undefined ? Infinity : goawayAt - order));
  const slowest = Math.max(...delays);
  return Number.isFinite(slowest) ? slowest : null;
}

export function windowOf(noted: Noted, log: readonly LoggedConnection[]): { from: number; to: number } {
  return { from: noted.startedAt, to: (lastEnd(noted, log) ?? Date.now()) + WINDOW_TAIL_MS };
}

export function upgradeResult(
  noted: Noted,
  log: readonly LoggedConnection[],
  idle: readonly IdleRecord[],
  counts: readonly ClientResult[],
): UpgradeResult {
  const { view } = noted;
  const sum = (pick: (one: ClientResult) => number) => counts.reduce((total, one) => total + pick(one), 0);
  // Counted from the clients' side, so that it is a witness of its own.
  const old = oldConnections(noted, log).length;
  const cut = view.connections?.cut.length ?? 0;
  return {
    from: view.from ?? noted.from,
    to: view.to ?? noted.to,
    method: view.method ?? 'unknown',
    requests: {
      total: sum((one) => one.total),
      failed: sum((one) => one.failed),
      refusedBeforeSent: sum((one) => one.refusedBeforeSent),
      byProtocol: Object.fromEntries(counts.map(({ name, total, failed }) => [name, { total, failed }])),
    },
    connections: { old, drained: old - cut, cut },
    drainStartedAt: view.drainStartedAt ?? noted.oldPortsAt,
    lastOldConnectionEndedAt: lastEnd(noted, log) ?? 0,
    safeToResetAt: view.safeToResetAt ?? 0,
    resetAt: view.resetAt ?? 0,
    goawayIdleMs: goawayDelay(noted, idle),
  };
}
