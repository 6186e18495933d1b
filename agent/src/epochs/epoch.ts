import type { EpochState, EpochStatus } from '@sluice/contract';
import type { Log } from '../log.ts';
import type { Reading } from '../pacing/load.ts';
import { AdminConnection } from '../witnesses/admin.ts';
import { FilterTable } from '../witnesses/filter-table.ts';
import { listenAddressesOf, readKernel } from '../witnesses/kernel.ts';
import { drainSources } from './drain-sources.ts';
import type { DrainSources } from './drain-watch.ts';
import type { EpochFolder, EpochMeta } from './folder.ts';
import { LiveEpoch } from './live-epoch.ts';
import { signal } from './proc.ts';

/** One live epoch of Envoy, with its witnesses. */
export class Epoch extends LiveEpoch<EpochMeta, EpochFolder> {
  readonly admin: AdminConnection;
  readonly table: FilterTable;
  /** What it had borne when another one was about to take its place, and when that was. */
  sampled: { readonly at: number; readonly reading: Promise<Reading | undefined> } | undefined;

  constructor(folder: EpochFolder, meta: EpochMeta, log: Log) {
    super(folder, meta, log);
    this.admin = new AdminConnection(meta.adminAddress, meta);
    this.table = new FilterTable(meta.epoch);
  }

  get party(): { epoch: number; socketPath: string; pid: number } {
    return { epoch: this.meta.restartEpoch, socketPath: this.meta.socketPath, pid: this.meta.pid };
  }

  /** To be called while it accepts: afterwards nothing tells which local ports were its listeners'. */
  captureListenAddresses(): void {
    const addresses = listenAddressesOf(this.meta.pid).filter((a) => a !== this.meta.adminAddress);
    if (addresses.length > 0) this.update({ listenAddresses: addresses });
  }

  setState(state: EpochState): void {
    this.update({ state });
  }

  protected startedWith(): Pick<EpochStatus, 'bootstrap' | 'method'> {
    const { bootstrap, method } = this.meta;
    return { bootstrap, ...(method !== undefined && { method }) };
  }

  sources(now: () => number): DrainSources {
    return drainSources(this, now);
  }

  countConnections(): number {
    return readKernel(this.process.pid, this.meta.listenAddresses ?? []).open;
  }

  /** Access logs are flushed on SIGTERM. To a child that still has a parent it would end that one too: see kill. */
  protected askToEnd(): void {
    signal(this.process, 'SIGTERM');
  }

  override release(): void {
    super.release();
    this.admin.close();
  }
}
