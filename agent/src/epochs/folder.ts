import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutConnection, DrainOrder, DrainPolicy, EpochState, MethodName } from '@sluice/contract';

/** How an old epoch ended. `old`: its connections when it stopped accepting; `cut`: those that the reset ended. */
export interface ResetReport {
  readonly at: number;
  readonly old: number;
  readonly drained: number;
  readonly cut: readonly CutConnection[];
  /** Why it ended before its verdict was safe, where no controller decided that. */
  readonly why?: string;
}

/** What a successor of this agent needs to know of an epoch, kept in `meta.json` of the epoch's folder. */
export interface EpochMeta {
  readonly epoch: number;
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
  readonly concurrency: number;
  readonly binary: string;
  readonly version: string;
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
  readonly state: EpochState;
  readonly pid: number;
  readonly startTime: string;
  readonly startedAt: number;
  /** Start of the first epoch of this line; its own start when absent. */
  readonly lineStartedAt?: number;
  readonly servingSince?: number;
  /** Set when its terminate request was swallowed: it never speaks to its parent again. Until then a broker must be there. */
  readonly independentAt?: number;
  /** The epoch that this one took over from. */
  readonly parent?: number;
  /** The upgrade that it was started by. */
  readonly createdBy?: string;
  /** The upgrade that ends it. */
  readonly endedBy?: string;
  readonly resetReport?: ResetReport;
  /** Set when a successor accepts in its place. */
  readonly drainingSince?: number;
  /** Those of `listenAddresses` on which every filter chain is HTTP; noted only where no filter runs. */
  readonly httpAddresses?: readonly string[];
  /** Addresses it listened on; the kernel witness needs them after the listeners are gone. */
  readonly listenAddresses?: readonly string[];
  readonly order?: DrainOrder;
  readonly orderAppliedAt?: number;
  /** Policy of the upgrade that ends this epoch. */
  readonly policy?: DrainPolicy;
  /** Open connections when it stopped accepting. */
  readonly oldConnections?: number;
}

export class EpochFolder {
  readonly path: string;
  readonly epoch: number;

  constructor(root: string, epoch: number) {
    this.epoch = epoch;
    this.path = join(root, String(epoch));
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
  get log(): string {
    return join(this.path, 'envoy.log');
  }
  /** FIFO whose write end Envoy inherits: its end-of-file is the death of Envoy, for this agent and any successor. */
  get alive(): string {
    return join(this.path, 'alive');
  }

  create(): void {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
    writeFileSync(this.pressure, '0');
  }

  writeMeta(meta: EpochMeta): void {
    writeAtomically(join(this.path, 'meta.json'), `${JSON.stringify(meta, null, 2)}\n`);
  }

  /** Undefined when there is none, or a torn one: written by rename, so that means the folder was made and nothing started. */
  readMeta(): EpochMeta | undefined {
    try {
      return JSON.parse(readFileSync(join(this.path, 'meta.json'), 'utf8')) as EpochMeta;
    } catch {
      return undefined;
    }
  }

  /** The last lines of Envoy's log, for an error message. */
  logTail(lines = 5): string {
    try {
      return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } catch {
      return '';
    }
  }
}

export function writeAtomically(file: string, content: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, content);
  renameSync(temporary, file);
}

/** Every epoch folder under `root`, oldest first. */
export function epochFolders(root: string): EpochFolder[] {
  if (!existsSync(root)) return [];
  return readdirSync(root)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .sort((a, b) => a - b)
    .map((epoch) => new EpochFolder(root, epoch));
}
