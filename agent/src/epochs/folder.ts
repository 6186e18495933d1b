import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MethodName } from '@sluice/contract';
import type { ProcessId } from './proc.ts';
import { type EpochNotes, epochNumbers, RunFolder } from './run-folder.ts';

export { type ResetReport, writeAtomically } from './run-folder.ts';

/** The notes on an epoch of Envoy. */
export interface EpochMeta extends EpochNotes {
  /**
   * Envoy's own --restart-epoch. It is not our number: a start with no live Envoy begins at 0 again (only epoch 0 creates
   * the shared memory), while our numbers are never used twice, so that no order meant for an old epoch hits a new one.
   */
  readonly restartEpoch: number;
  readonly baseId: number;
  readonly socketPath: string;
  /** False: started without hot restart. Absent in folders of an older agent: with it. */
  readonly hotRestart?: boolean;
  /** How it took over from its parent. */
  readonly method?: MethodName;
  /** Method reuse-port: new connections may have come to it, though it does not serve yet. */
  readonly steered?: boolean;
  /** It can not be told to stop accepting, and gets no connection all the same: they are steered to its successor. */
  readonly steeredAround?: boolean;
  readonly concurrency: number;
  /** Path of a Unix socket, or `host:port`. */
  readonly adminAddress: string;
  /** This Envoy runs the filter; without it admin and kernel are the only witnesses. */
  readonly wasm: boolean;
  /** Single connections can be told to leave (lever `mark`); absent: an epoch from before that. */
  readonly leave?: boolean;
  /**
   * What the pressure can do, by the static listeners of its bootstrap, and the max_connection_duration that a cut-off by
   * age is computed for (ms). Both absent: none of them is HTTP, or an epoch from before this was noted (30 days).
   */
  readonly ageCutoff?: 'exact' | 'all-only';
  readonly durationMs?: number;
  /** The user's bootstrap that this epoch was started from. */
  readonly bootstrap: string;
  /** Start of the first epoch of this line; its own start when absent. */
  readonly lineStartedAt?: number;
  /** Set when its terminate request was swallowed: it never speaks to its parent again. Until then a broker must be there. */
  readonly independentAt?: number;
  /** The process that passes QUIC packets on to the child. */
  readonly relay?: ProcessId | undefined;
  /** Those of `listenAddresses` on which every filter chain is HTTP; noted only where no filter runs. */
  readonly httpAddresses?: readonly string[];
  /** Addresses it listened on; the kernel witness needs them after the listeners are gone. */
  readonly listenAddresses?: readonly string[];
}

export class EpochFolder extends RunFolder<EpochMeta> {
  constructor(root: string, epoch: number) {
    super(root, epoch, 'envoy.log');
  }

  get bootstrap(): string {
    return join(this.path, 'bootstrap.json');
  }
  get pressure(): string {
    return join(this.path, 'pressure');
  }
  get admin(): string {
    return join(this.path, 'admin.sock');
  }
  /** ECDS by file, when no controller brings the drain order. */
  get order(): string {
    return join(this.path, 'order.json');
  }
  /** ECDS by file for what tells single connections to leave. */
  get leave(): string {
    return join(this.path, 'leave.json');
  }

  override create(): void {
    super.create();
    writeFileSync(this.pressure, '0');
  }
}

/** Every epoch folder under `root`, oldest first. */
export function epochFolders(root: string): EpochFolder[] {
  return epochNumbers(root).map((epoch) => new EpochFolder(root, epoch));
}
