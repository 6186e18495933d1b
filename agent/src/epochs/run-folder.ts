import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CutConnection, DrainOrder, DrainPolicy, EpochState, Estimate, Override } from '@sluice/contract';

/** How an old epoch ended. `old`: its connections when it stopped accepting; `cut`: those that the reset ended. */
export interface ResetReport {
  readonly at: number;
  readonly old: number;
  readonly drained: number;
  readonly cut: readonly CutConnection[];
  /** Why it ended before its verdict was safe, where no controller decided that. */
  readonly why?: string;
  /** Whose word ended it although protected connections were left. */
  readonly override?: Override;
}

/** What a successor of this agent needs to know of an epoch of any proxy. Times are epoch milliseconds. */
export interface EpochNotes {
  readonly epoch: number;
  readonly pid: number;
  readonly startTime: string;
  readonly state: EpochState;
  readonly binary: string;
  readonly version: string;
  readonly startedAt: number;
  readonly servingSince?: number;
  /** Set when a successor accepts in its place. */
  readonly drainingSince?: number;
  /** The epoch that this one took over from. */
  readonly parent?: number;
  /** The upgrade that it was started by. */
  readonly createdBy?: string;
  /** The upgrade that ends it. */
  readonly endedBy?: string;
  /** Policy of the upgrade that ends this epoch. */
  readonly policy?: DrainPolicy;
  readonly order?: DrainOrder;
  readonly orderAppliedAt?: number;
  /** What was said first of the end of its drain. */
  readonly firstEstimate?: Estimate;
  /** Open connections when it stopped accepting. */
  readonly oldConnections?: number;
  /** Given, and the reset begun by it may have cut some already. */
  readonly override?: Override;
  readonly resetReport?: ResetReport;
}

/** The folder of one epoch, named by its number; its notes stand in `meta.json`. */
export class RunFolder<Meta extends EpochNotes> {
  readonly path: string;
  readonly epoch: number;
  readonly log: string;

  constructor(root: string, epoch: number, log: string) {
    this.epoch = epoch;
    this.path = join(root, String(epoch));
    this.log = join(this.path, log);
  }

  /** FIFO whose write end the process inherits: its end-of-file is its death, for this agent and any successor. */
  get alive(): string {
    return join(this.path, 'alive');
  }

  create(): void {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
  }

  writeMeta(meta: Meta): void {
    writeAtomically(join(this.path, 'meta.json'), `${JSON.stringify(meta, null, 2)}\n`);
  }

  /** Undefined when there is none, or a torn one: written by rename, so that means the folder was made and nothing started. */
  readMeta(): Meta | undefined {
    try {
      return JSON.parse(readFileSync(join(this.path, 'meta.json'), 'utf8')) as Meta;
    } catch {
      return undefined;
    }
  }

  /** The last lines of the proxy's log, for an error message. */
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

/** Numbers of the epochs that have a folder under `root`, oldest first; none where there is no such folder. */
export function epochNumbers(root: string): number[] {
  let names: string[];
  try {
    names = readdirSync(root);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
  return names
    .filter((name) => /^\d{1,15}$/.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}
