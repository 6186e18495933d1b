import type { AgentMessage } from '@sluice/contract';
import { KeptSockets } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { EpochRegistry } from '../epochs/registry.ts';
import { Standing } from '../handoff/standing.ts';
import { type AgentLink, createLink } from '../link/index.ts';
import { Crashes } from '../supervisor/crashes.ts';
import { drainClock } from './clock.ts';
import { commandHandler } from './commands.ts';
import { knownVersions, type ResolvedConfig } from './config.ts';
import type { KeeperContext } from './context.ts';
import { Drains } from './drains.ts';
import { Ending } from './ending.ts';
import { Exclusive } from './exclusive.ts';
import { helloOf } from './hello.ts';
import { openStatus } from './status.ts';
import { Upgrades } from './upgrades.ts';

type Outbox = (message: AgentMessage) => void;

/** What is said before the link is there: of the states the hello tells. */
const MAX_EARLY = 64;

/** A context whose messages wait until `sendBy` names who takes them. */
export function createContext(
  config: ResolvedConfig,
  options: Pick<KeeperContext, 'signal' | 'launch'>,
): { readonly context: KeeperContext; sendBy(outbox: Outbox): void } {
  const early: AgentMessage[] = [];
  let send: Outbox = (message) => {
    if (message.type !== 'epochs' && message.type !== 'verdict' && early.length < MAX_EARLY) early.push(message);
  };
  const standing = new Standing();
  const registry = new EpochRegistry(config.dir, config.shared);
  const clock = drainClock(() => registry.all().some((epoch) => epoch.drain !== undefined));
  const context: KeeperContext = {
    config,
    registry,
    kept: new KeptSockets(),
    standing,
    exclusive: new Exclusive(() => standing.changed()),
    log: config.log,
    clock,
    now: clock.now,
    send: (message) => send(message),
    alone: config.controllers.length === 0,
    ...options,
  };
  return {
    context,
    sendBy(outbox) {
      send = outbox;
      for (const message of early.splice(0)) outbox(message);
    },
  };
}

export interface Assembly {
  readonly context: KeeperContext;
  readonly drains: Drains;
  readonly upgrades: Upgrades;
  readonly ending: Ending;
  /** To be told of each new process. */
  readonly watch: (epoch: Epoch) => void;
  readonly link: () => AgentLink | undefined;
  /** Takes the status port over from the agent of the other slot, where that one has it. */
  claimStatusPort(): Promise<void>;
  statusPortGiven(): Promise<void>;
  /** Opens the link; none where the agent is alone. */
  connect(): AgentLink | undefined;
  /** Lets go of everything; the epochs live on. */
  release(): Promise<void>;
}

/**
 * The parts that an agent has in either front end, wired to each other; the agent's socket and status port are open.
 * `supervise`: crashes are answered here, and not by whoever started this process.
 */
export async function assemble(
  config: ResolvedConfig,
  { supervise, ...options }: Pick<KeeperContext, 'signal' | 'launch'> & { readonly supervise: boolean },
): Promise<Assembly> {
  const { context, sendBy } = createContext(config, options);
  const crashes = new Crashes(context);
  const watch = supervise ? (epoch: Epoch) => crashes.watch(epoch) : () => {};
  const drains = new Drains(context);
  const upgrades = new Upgrades(context, drains, watch);
  let link: AgentLink | undefined;
  const ending = new Ending(context, drains, () => link?.connected ?? false);
  const status = await openStatus(context, {
    crashes,
    upgrades,
    drains,
    ending,
    link: () => link ?? { connected: false },
  });
  return {
    context,
    drains,
    upgrades,
    ending,
    watch,
    link: () => link,
    claimStatusPort: status.claimPort,
    statusPortGiven: status.portGiven,
    connect() {
      if (context.alone) return undefined;
      link = createLink({
        urls: config.controllers,
        hello: () => helloOf(context, knownVersions(config.envoys)),
        onMessage: commandHandler(context, upgrades, drains),
        log: config.log,
        signal: context.signal,
      });
      sendBy(link.send);
      return link;
    },
    async release() {
      drains.stop();
      for (const epoch of context.registry.all()) epoch.release();
      context.kept.closeAll();
      link?.close();
      await status.close();
    },
  };
}
