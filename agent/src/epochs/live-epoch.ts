import type { EpochStatus } from '@sluice/contract';
import type { Log } from '../log.ts';
import { watchAlive } from './alive.ts';
import type { DrainSources, DrainWatch } from './drain-watch.ts';
import { type ProcessId, signal } from './proc.ts';
import type { EpochNotes, RunFolder } from './run-folder.ts';

/** A proxy that was asked to end and has not after this is killed; Envoy ends in well under a second. */
const END_BOUND_MS = 5_000;

/** An epoch of any proxy, for what is the same of all. */
export type AnyEpoch = LiveEpoch<EpochNotes, RunFolder<EpochNotes>>;

/** One live epoch of this slot: its process, its notes, and its drain once it has begun. */
export abstract class LiveEpoch<Meta extends EpochNotes, Folder extends RunFolder<Meta>> {
  readonly folder: Folder;
  /** Its descriptors close: it accepts nothing any more. */
  readonly closing: Promise<void>;
  readonly gone: Promise<void>;
  drain: DrainWatch | undefined;
  /** Its end is wanted: not a crash. */
  ending = false;
  #meta: Meta;
  readonly #stopWatching: () => void;

  constructor(folder: Folder, meta: Meta, log: Log) {
    this.folder = folder;
    this.#meta = meta;
    const watch = watchAlive(folder.alive, this.process);
    this.closing = watch.closing;
    this.gone = watch.gone;
    this.#stopWatching = watch.stop;
    void watch.gone.then(() => log('info', 'epoch ended', { epoch: meta.epoch, pid: meta.pid, wanted: this.ending }));
  }

  get meta(): Meta {
    return this.#meta;
  }
  get number(): number {
    return this.#meta.epoch;
  }
  get process(): ProcessId {
    return { pid: this.#meta.pid, startTime: this.#meta.startTime };
  }

  /** Changes what a successor must know; on disk before it returns. */
  update(change: Partial<Meta>): void {
    this.#meta = { ...this.#meta, ...change };
    this.folder.writeMeta(this.#meta);
  }

  status(slot: string): EpochStatus {
    const m = this.#meta;
    // The upgrade that it takes part in now.
    const upgradeId = m.endedBy ?? m.createdBy;
    return {
      epoch: m.epoch,
      slot,
      state: m.state,
      version: m.version,
      binary: m.binary,
      pid: m.pid,
      startedAt: m.startedAt,
      ...this.startedWith(),
      ...(m.drainingSince !== undefined && { drainingSince: m.drainingSince }),
      ...(upgradeId !== undefined && { upgradeId }),
      ...(m.order && { orderVersion: m.order.version }),
      ...(this.drain?.verdict && { verdict: this.drain.verdict }),
    };
  }

  protected abstract startedWith(): Pick<EpochStatus, 'bootstrap' | 'method'>;

  abstract sources(now: () => number): DrainSources;

  /** Its connections as of now. Throws when the kernel can not tell. */
  abstract countConnections(): number;

  /** Ends the process as the proxy is to be ended, and by force after a bound. Resolves when it is gone. */
  async end(): Promise<void> {
    this.ending = true;
    this.drain?.stop();
    this.askToEnd();
    const timer = setTimeout(() => this.forceEnd(), END_BOUND_MS);
    await this.gone;
    clearTimeout(timer);
    this.#ended();
  }

  /** At once, for an epoch that never served. */
  async kill(): Promise<void> {
    this.ending = true;
    this.drain?.stop();
    this.forceEnd();
    await this.gone;
    this.#ended();
  }

  protected abstract askToEnd(): void;

  protected forceEnd(): void {
    signal(this.process, 'SIGKILL');
  }

  #ended(): void {
    this.release();
    this.update({ state: 'ended' } as Partial<Meta>);
  }

  /** Lets go of what this agent holds of it; the process lives on. */
  release(): void {
    this.drain?.stop();
    this.#stopWatching();
  }
}
