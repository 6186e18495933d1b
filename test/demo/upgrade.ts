import { isTerminal, type ProxyView, type UpgradeView, type WatchItem } from '@sluice/contract';
import { clientPortsOf } from '../harness/kernel.ts';
import { until } from '../harness/process.ts';
import type { Stack } from '../harness/stack.ts';
import type { Noted } from './result.ts';

/** What the controller last said of the proxy and the upgrade; kept current by its watch stream. */
export class Follower {
  proxy: ProxyView | undefined;
  readonly upgrades = new Map<string, UpgradeView>();
  private waiting: (() => void)[] = [];
  private readonly onPhase: (upgrade: UpgradeView) => void;

  constructor(onPhase: (upgrade: UpgradeView) => void) {
    this.onPhase = onPhase;
  }

  take(item: WatchItem): void {
    if (item.kind === 'proxy') this.proxy = item.proxy;
    if (item.kind === 'upgrade') {
      const before = this.upgrades.get(item.upgrade.id)?.phase;
      this.upgrades.set(item.upgrade.id, item.upgrade);
      if (before !== item.upgrade.phase) this.onPhase(item.upgrade);
    }
    for (const wake of this.waiting.splice(0)) wake();
  }

  /** Resolves as soon as `find` finds something, looked at after each change. @throws Error when the time is over */
  async when<T>(what: string, limitMs: number, find: () => T | undefined): Promise<T> {
    const late = AbortSignal.timeout(limitMs);
    for (;;) {
      const found = find();
      if (found !== undefined) return found;
      if (late.aborted) throw new Error(`${what}: not within ${limitMs / 1000} s`);
      await new Promise<void>((resolve) => {
        this.waiting.push(resolve);
        late.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }
}

const START_LIMIT_MS = 60_000;

/** One upgrade by the controller's API, to its end. @throws Error when it fails */
export async function runUpgrade(stack: Stack, follower: Follower, to: string, drainLimitMs: number): Promise<Noted> {
  const before = await stack.api.proxy(stack.proxy);
  const old = before.epochs.find(({ epoch }) => epoch === before.serving?.epoch);
  if (old === undefined) throw new Error('no epoch serves');
  const asked = Date.now();
  const { id } = await stack.api.create({ proxy: stack.proxy, to });

  const draining = await follower.when(`${to} serves`, START_LIMIT_MS, () => {
    const view = follower.upgrades.get(id);
    if (view !== undefined && (view.phase === 'Failed' || view.phase === 'RolledBack')) throw failure(view);
    return view?.drainStartedAt === undefined ? undefined : view;
  });
  // The old epoch accepts no more: what it holds now is all that it will ever hold.
  const { http, tls, tcp } = stack.targets;
  const oldPortsAt = Date.now();
  // None: it has ended already.
  const oldPorts = await clientPortsOf(old.pid, [http, tls, tcp]).catch(() => new Set<number>());
  const now = await stack.api.proxy(stack.proxy);
  const fresh = now.epochs.find(({ epoch }) => epoch === draining.epoch);

  await follower.when(`the drain of ${old.version}`, drainLimitMs, () => {
    const view = follower.upgrades.get(id);
    return view !== undefined && isTerminal(view.phase) ? view : undefined;
  });
  const view = await stack.api.upgrade(id);
  if (view.phase !== 'Done') throw failure(view);
  await until('the old process ends', () => (running(old.pid) ? undefined : true));
  const startedAt = fresh?.startedAt ?? asked;
  return { view, from: old.version, to, startedAt, oldPorts, oldPortsAt };
}

function failure(view: UpgradeView): Error {
  return new Error(`${view.phase}: ${view.failure?.code ?? ''} ${view.failure?.message ?? view.reason}`);
}

function running(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
