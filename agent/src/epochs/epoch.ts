import type { EpochState, EpochStatus } from '@sluice/contract';
import type { Log } from '../log.ts';
import { AdminConnection } from '../witnesses/admin.ts';
import { FilterTable } from '../witnesses/filter-table.ts';
import { listenAddressesOf } from '../witnesses/kernel.ts';
import { watchAlive } from './alive.ts';
import { drainSources } from './drain-sources.ts';
import type { DrainSources, DrainWatch } from './drain-watch.ts';
import type { EpochFolder, EpochMeta } from './folder.ts';
import { type ProcessId, signal } from './proc.ts';

/** Envoy flushes its access logs on SIGTERM and ends in well under a second; after this it is killed. */
const TERM_BOUND_MS = 5_000;

/** One live epoch of this slot: its process, its witnesses, and its drain once it has begun. */
export class Epoch {
  readonly admin: AdminConnection;
  readonly table: FilterTable;
  readonly gone: Promise<void>;
  drain: DrainWatch | undefined;
  /** Its end is wanted: not a crash. */
  ending = false;
  readonly folder: EpochFolder;
  #meta: EpochMeta;
  readonly #stopWatching: () => void;

  constructor(folder: EpochFolder, meta: EpochMeta, log: Log) {
    this.folder = folder;
    this.#meta = meta;
    this.admin = new AdminConnection(meta.adminAddress, meta);
    this.table = new FilterTable(meta.epoch);
    const watch = watchAlive(folder.alive, this.process);
    this.gone = watch.gone;
    this.#stopWatching = watch.stop;
    void watch.gone.then(() => log('info', 'epoch ended', { epoch: meta.epoch, pid: meta.pid, wanted: this.ending }));
  }

  get meta(): EpochMeta {
    return this.#meta;
  }
  get number(): number {
    return this.#meta.epoch;
  }
  get process(): ProcessId {
    return { pid: this.#meta.pid, startTime: this.#meta.startTime };
  }
  get party(): { epoch: number; socketPath: string; pid: number } {
    return { epoch: this.#meta.restartEpoch, socketPath: this.#meta.socketPath, pid: this.#meta.pid };
  }

  /** Changes what a successor must know; on disk before it returns. */
  update(change: Partial<EpochMeta>): void {
    this.#meta = { ...this.#meta, ...change };
    this.folder.writeMeta(this.#meta);
  }

  /** To be called while it accepts: afterwards nothing tells which local ports were its listeners'. */
  captureListenAddresses(): void {
    const addresses = listenAddressesOf(this.#meta.pid).filter((a) => a !== this.#meta.adminAddress);
    if (addresses.length > 0) this.update({ listenAddresses: addresses });
  }

  setState(state: EpochState): void {
    this.update({ state });
  }

  status(slot: string): EpochStatus {
    const m = this.#meta;
    return {
      epoch: m.epoch,
      slot,
      state: m.state,
      version: m.version,
      binary: m.binary,
      bootstrap: m.bootstrap,
      pid: m.pid,
      startedAt: m.startedAt,
      ...(m.drainingSince !== undefined && { drainingSince: m.drainingSince }),
      // The upgrade that it takes part in now.
      ...((m.endedBy ?? m.createdBy) !== undefined && { upgradeId: (m.endedBy ?? m.createdBy) as string }),
      ...(m.method !== undefined && { method: m.method }),
      ...(m.order && { orderVersion: m.order.version }),
      ...(this.drain?.verdict && { verdict: this.drain.verdict }),
    };
  }

  sources(now: () => number): DrainSources {
    return drainSources(this, now);
  }

  /** Ends the process: SIGTERM so that access logs are flushed, SIGKILL after a bound. Resolves when it is gone. */
  async end(): Promise<void> {
    this.ending = true;
    this.drain?.stop();
    signal(this.process, 'SIGTERM');
    const timer = setTimeout(() => signal(this.process, 'SIGKILL'), TERM_BOUND_MS);
    await this.gone;
    clearTimeout(timer);
    this.release();
    this.setState('ended');
  }

  /** At once, for an epoch that never served: SIGTERM to a child that still has a parent would end that one too. */
  async kill(): Promise<void> {
    this.ending = true;
    this.drain?.stop();
    signal(this.process, 'SIGKILL');
    await this.gone;
    this.release();
    this.setState('ended');
  }

  /** Lets go of what this agent holds of it; the process lives on. */
  release(): void {
    this.drain?.stop();
    this.admin.close();
    this.#stopWatching();
  }
}
