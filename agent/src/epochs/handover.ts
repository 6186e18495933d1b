import { type MethodName, SluiceError, toSluiceError } from '@sluice/contract';
import type { AgeCutoff } from '@sluice/contract/presets/index';
import {
  clearInitializing,
  type Handover,
  type KeptSockets,
  type Party,
  playParent,
  type RelayOptions,
  relayHandover,
} from '../broker/index.ts';
import type { Log } from '../log.ts';
import { makeFifo } from '../native/fds.ts';
import { Epoch } from './epoch.ts';
import type { EpochFolder, EpochMeta } from './folder.ts';
import { type Launch, launch } from './launch.ts';
import type { ProcessId } from './proc.ts';

/** All that is fixed of an epoch before its process exists. */
export interface EpochPlan {
  readonly folder: EpochFolder;
  readonly binary: string;
  readonly version: string;
  /** The user's bootstrap; the merged one is already in the folder. */
  readonly bootstrap: string;
  readonly baseId: number;
  readonly restartEpoch: number;
  /** False: the process takes no part in hot restart at all. */
  readonly hotRestart: boolean;
  /** How it takes over; absent when there is nothing to take over from. */
  readonly method?: MethodName;
  readonly concurrency: number;
  readonly drainTimeS: number;
  readonly adminAddress: string;
  /** This Envoy runs the filter. */
  readonly wasm: boolean;
  /** Its listeners have the slot of what tells single connections to leave. */
  readonly leave: boolean;
  /** What the pressure can do to its static listeners; undefined: none of them is HTTP. */
  readonly cutoff: AgeCutoff | undefined;
  readonly upgradeId?: string;
  readonly extraArgs?: readonly string[];
}

export type Predecessor =
  /** No Envoy lives and no socket is kept. */
  | { readonly kind: 'none' }
  | {
      readonly kind: 'live';
      readonly party: Party;
      readonly number: number;
      readonly ownAdmin: boolean;
      /** Stops its listeners without its own drain; rejects when it can not be reached. */
      readonly stopListeners?: () => Promise<unknown>;
      /** Which of its UDP sockets the new one does not share (broker/types.ts). */
      readonly bindsBeside?: RelayOptions['bindsBeside'];
      /** Start of the line of epochs, ms: `uptime_all_epochs` counts from it. */
      readonly originalStart?: number;
    }
  /**
   * Another Envoy accepts on the same addresses, and knows nothing of this one. `takeOver` begins when this one is ready,
   * and resolves when it alone accepts.
   */
  | { readonly kind: 'beside'; readonly number: number; readonly takeOver: (epoch: Epoch) => Promise<void> }
  /** The last one crashed; its listen sockets are kept. */
  | { readonly kind: 'kept'; readonly number: number };

export interface BringUpOptions {
  readonly plan: EpochPlan;
  readonly predecessor: Predecessor;
  readonly kept: KeptSockets;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
  /** The process exists; its reports may come from now on. */
  readonly onLaunched: (epoch: Epoch) => void;
  /** It is about to get connections, or has just begun to; before anything is written down. */
  readonly onTraffic: (epoch: Epoch) => void;
  /** How the process comes to be; the default starts one that outlives this one. */
  readonly launch?: (envoy: Launch, note: (process: ProcessId) => void) => Promise<ProcessId>;
}

/** What every start of an epoch is given, whatever it takes over from. */
export type StartOptions = Omit<BringUpOptions, 'predecessor'>;

export interface BroughtUp {
  readonly epoch: Epoch;
  readonly servingAt: number;
  /** The broker is done: from now on the epochs do not depend on each other. */
  readonly independent: Promise<unknown>;
}

export function socketPath(baseId: number, epoch: number): string {
  return `@sluice-${baseId}-${epoch}`;
}

/**
 * Starts an epoch and waits until it serves. On any failure the process is killed, the "still initializing" flag cleared,
 * and the predecessor is as it was: serving, or (after its DrainListeners) waiting in the kept sockets for the next try.
 * Throws EPOCH_DIED or EPOCH_TIMEOUT with the end of Envoy's log.
 */
export async function bringUp(options: BringUpOptions): Promise<BroughtUp> {
  const { plan } = options;
  const child: Party = { epoch: plan.restartEpoch, socketPath: socketPath(plan.baseId, plan.folder.epoch) };
  const handover = await openHandover(options, child);
  let epoch: Epoch | undefined;
  try {
    epoch = await startProcess(options);
    handover?.watchChild(epoch.process.pid);
    options.onLaunched(epoch);
    const servingAt = await untilServing(options, epoch, handover);
    const launched = epoch;
    launched.setState('serving');
    handover?.independent.then(
      ({ at }) => launched.update({ independentAt: at }),
      () => {},
    );
    return { epoch, servingAt, independent: handover?.independent ?? Promise.resolve() };
  } catch (thrown) {
    handover?.close();
    await epoch?.kill();
    // Without a parent the shared memory is nobody else's.
    if (handover) clearInitializing(plan.baseId);
    const error = toSluiceError(thrown);
    throw new SluiceError(error.code, `${error.message}${logged(plan.folder)}`, { cause: thrown, hint: error.hint });
  }
}

function logged(folder: EpochFolder): string {
  const tail = folder.logTail();
  return tail === '' ? '' : `; the end of its log: ${tail}`;
}

async function openHandover(options: BringUpOptions, child: Party): Promise<Handover | undefined> {
  const { plan, predecessor, kept, signal, log, timeoutMs } = options;
  const common = {
    baseId: plan.baseId,
    kept,
    signal,
    timeoutMs,
    log: (message: string, fields?: Record<string, unknown>) => log('debug', `broker: ${message}`, fields),
  };
  switch (predecessor.kind) {
    case 'none':
    case 'beside':
      return undefined;
    case 'kept':
      return playParent({ ...common, child });
    case 'live':
      return relayHandover({
        ...common,
        parent: predecessor.party,
        child,
        shutdownAdmin: predecessor.ownAdmin ? 'answer' : 'relay',
        ...(predecessor.stopListeners && { stopListeners: predecessor.stopListeners }),
        ...(predecessor.bindsBeside && { bindsBeside: predecessor.bindsBeside }),
        ...(predecessor.originalStart !== undefined && {
          originalStartSeconds: Math.floor(predecessor.originalStart / 1_000),
        }),
      });
  }
}

/** The Envoy of a plan, as it is to be executed. */
export function envoyOf(plan: EpochPlan): Launch {
  const { folder } = plan;
  return {
    binary: plan.binary,
    args: [
      ...['-c', folder.bootstrap],
      // Without hot restart the base id is no more than a name, by which the admin tells whose it is.
      ...['--base-id', String(plan.baseId)],
      ...(plan.hotRestart
        ? [
            ...['--restart-epoch', String(plan.restartEpoch)],
            ...['--socket-path', socketPath(plan.baseId, folder.epoch)],
            // The child asks its parent to end after this; the broker swallows that request.
            ...['--parent-shutdown-time-s', '2'],
          ]
        : ['--disable-hot-restart']),
      // The user's: what an LDS update replaces is closed when it is over. No drain of ours waits for it.
      ...['--drain-time-s', String(plan.drainTimeS)],
      ...['--concurrency', String(plan.concurrency)],
      ...(plan.extraArgs ?? []),
    ],
    alive: folder.alive,
    log: folder.log,
    cwd: folder.path,
  };
}

/** What the epoch's folder says of it from the moment that its process exists. */
export function metaOf(plan: EpochPlan, process: ProcessId, predecessor: Predecessor): EpochMeta {
  return {
    epoch: plan.folder.epoch,
    restartEpoch: plan.restartEpoch,
    baseId: plan.baseId,
    socketPath: socketPath(plan.baseId, plan.folder.epoch),
    concurrency: plan.concurrency,
    binary: plan.binary,
    version: plan.version,
    bootstrap: plan.bootstrap,
    state: 'starting',
    pid: process.pid,
    startTime: process.startTime,
    startedAt: Date.now(),
    adminAddress: plan.adminAddress,
    wasm: plan.wasm,
    leave: plan.leave,
    ...plan.cutoff,
    hotRestart: plan.hotRestart,
    ...(plan.method !== undefined && { method: plan.method }),
    ...((predecessor.kind === 'live' || predecessor.kind === 'beside') && { parent: predecessor.number }),
    ...(predecessor.kind === 'live' &&
      predecessor.originalStart !== undefined && { lineStartedAt: predecessor.originalStart }),
    ...(plan.upgradeId !== undefined && { createdBy: plan.upgradeId }),
  };
}

async function startProcess(options: BringUpOptions): Promise<Epoch> {
  const { plan, predecessor, log } = options;
  makeFifo(plan.folder.alive);
  const note = (process: ProcessId): EpochMeta => {
    const meta = metaOf(plan, process, predecessor);
    plan.folder.writeMeta(meta);
    return meta;
  };
  // Noted before it runs, where that can be: one that nobody knows of would listen beside the serving one for ever.
  const process = await (options.launch ?? launch)(envoyOf(plan), note);
  return new Epoch(plan.folder, plan.folder.readMeta() ?? note(process), log);
}

async function untilServing(options: BringUpOptions, epoch: Epoch, handover: Handover | undefined): Promise<number> {
  const died = epoch.gone.then(() => {
    throw new SluiceError('EPOCH_DIED', `expected epoch ${epoch.number} to serve, found its process ended`);
  });
  died.catch(() => {});
  const drain = await Promise.race([handover ? handover.drainRequested : firstReady(options, epoch), died]);
  options.onTraffic(epoch);
  if (drain) return drain.at;
  // Not given up when the process dies: by then the other one may have stopped, and then it is a crash.
  if (options.predecessor.kind === 'beside') await options.predecessor.takeOver(epoch);
  return Date.now();
}

/** An epoch without a parent has nobody to tell that it serves: only /ready says so. */
async function firstReady(options: BringUpOptions, epoch: Epoch): Promise<void> {
  const deadline = Date.now() + options.timeoutMs;
  for (let wait = 10; Date.now() < deadline; wait = Math.min(wait * 1.5, 250)) {
    options.signal.throwIfAborted();
    if (await epoch.admin.ready().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  throw new SluiceError(
    'EPOCH_TIMEOUT',
    `expected epoch ${epoch.number} to be ready within ${options.timeoutMs} ms, found it is not`,
  );
}
