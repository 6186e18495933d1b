import { setTimeout as delay } from 'node:timers/promises';
import { SluiceError } from '@sluice/contract';
import type { Launch } from '../epochs/launch.ts';
import type { ProcessId } from '../epochs/proc.ts';
import { adopt } from '../keeper/adopt.ts';
import { assemble } from '../keeper/assemble.ts';
import { type KeeperConfig, resolveBinary, resolveConfig } from '../keeper/config.ts';
import type { KeeperContext } from '../keeper/context.ts';
import type { Upgrades } from '../keeper/upgrades.ts';
import type { AgentLink } from '../link/index.ts';

/** A controller that is not there by then is done without. */
const LINK_WAIT_MS = 3_000;
/** What was sent last, the reset, should still reach the controller. */
const FLUSH_MS = 5_000;
/** A drained epoch that nobody resets: its process is gone, and the controller away. */
const FORGOTTEN_MS = 60_000;

export interface HelperOptions {
  readonly config: KeeperConfig;
  /** The process beside this one becomes the new epoch; false = only the drains of earlier ones are left to do. */
  readonly upgrade: boolean;
  /** Lets the front become this Envoy; resolves when it has. */
  readonly become: (envoy: Launch) => Promise<ProcessId>;
  readonly signal: AbortSignal;
}

/**
 * The helper of one upgrade: a keeper that supervises nothing. Checks the target, hands over from the serving epoch to the
 * process beside it, drains and resets the old epochs, and resolves when none is left. Throws what kept the new epoch
 * from serving; the old one serves then.
 */
export async function helpOneUpgrade(options: HelperOptions): Promise<void> {
  const config = resolveConfig(options.config);
  const { signal, become: launch } = options;
  // Nobody's crash is answered here: whoever started the front starts it again.
  const parts = await assemble(config, { signal, launch, supervise: false });
  const { context, drains, upgrades, watch } = parts;
  try {
    await adopt(context, drains, watch);
    const link = parts.connect();
    if (options.upgrade) await upgradeTo(context, upgrades, link);
    await untilDrained(context);
    await flushed(link);
  } finally {
    await parts.release();
  }
}

/** By the controller when it is there: then it is its upgrade, with its policy. Else by this agent's own word. */
async function upgradeTo(context: KeeperContext, upgrades: Upgrades, link: AgentLink | undefined): Promise<void> {
  const { config, registry, signal } = context;
  const old = registry.serving();
  if (!old) throw new SluiceError('PHASE_REFUSED', 'expected an epoch that serves, found that it has just ended');
  const target = { to: resolveBinary(config.envoy, config.envoys), bootstrap: config.bootstrap };
  const { ok, checks } = await upgrades.check(target);
  if (!ok) {
    const failed = checks.filter((check) => !check.ok);
    const found = failed.map((check) => `${check.name}: ${check.found}`).join('; ');
    throw new SluiceError('PHASE_REFUSED', `expected a target that passes its checks, found ${found}`);
  }
  if (link && (await within(LINK_WAIT_MS, signal, () => link.connected))) {
    link.send({ type: 'propose', target, reason: 'a new agent started in the place of the serving one' });
  } else {
    await upgrades.start({ upgradeId: `local-${context.now().toString(36)}`, target, policy: config.policy });
  }
  const serves = await within(config.startTimeoutMs, signal, () => {
    const serving = registry.serving();
    return serving !== undefined && serving !== old;
  });
  if (!serves)
    throw new SluiceError('EPOCH_DIED', `expected the new epoch to serve, found that epoch ${old.number} does`);
}

async function untilDrained({ registry, log, signal }: KeeperContext): Promise<void> {
  for (;;) {
    const draining = registry.draining();
    if (draining.length === 0) return;
    signal.throwIfAborted();
    await Promise.all(draining.map((epoch) => epoch.gone));
    const forgotten = !(await within(FORGOTTEN_MS, signal, () => draining.every((e) => registry.get(e.number) !== e)));
    if (!forgotten) continue;
    for (const epoch of draining) registry.remove(epoch);
    log('warn', 'old epochs ended without a reset', { epochs: draining.map((epoch) => epoch.number) });
  }
}

async function flushed(link: AgentLink | undefined): Promise<void> {
  if (link) await within(FLUSH_MS, new AbortController().signal, () => link.waiting === 0 || !link.connected);
}

const LOOK_MS = 20;

/** Looks until it is so, for a bounded time: none of these has an event, and all are over soon. */
async function within(ms: number, signal: AbortSignal, isSo: () => boolean): Promise<boolean> {
  for (const end = Date.now() + ms; Date.now() < end; await delay(LOOK_MS)) {
    signal.throwIfAborted();
    if (isSo()) return true;
  }
  return isSo();
}
