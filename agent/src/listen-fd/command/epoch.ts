import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Connection, DrainOrder, DrainPolicy, EpochState, EpochStatus } from '@sluice/contract';
import { watchAlive } from '../../epochs/alive.ts';
import type { DrainSources, DrainWatch } from '../../epochs/drain-watch.ts';
import { type ResetReport, writeAtomically } from '../../epochs/folder.ts';
import type { Log } from '../../log.ts';
import type { KernelSocket } from '../../witnesses/kernel.ts';
import { ProcessGroup } from './processes.ts';

/** What a successor of this agent has to know of an epoch; `meta.json` of its folder. Times are epoch milliseconds. */
export interface CommandMeta {
  readonly epoch: number;
  readonly pid: number;
  readonly startTime: string;
  readonly state: EpochState;
  readonly binary: string;
  readonly config: string;
  readonly version: string;
  readonly addresses: readonly string[];
  readonly startedAt: number;
  readonly servingSince?: number;
  readonly drainingSince?: number;
  readonly parent?: number;
  readonly createdBy?: string;
  /** What served before the upgrade that created it. */
  readonly before?: { readonly binary: string; readonly config: string };
  readonly endedBy?: string;
  readonly policy?: DrainPolicy;
  readonly order?: DrainOrder;
  readonly oldConnections?: number;
  readonly resetReport?: ResetReport;
}

export class CommandFolder {
  readonly path: string;
  readonly epoch: number;

  constructor(root: string, epoch: number) {
    this.epoch = epoch;
    this.path = join(root, String(epoch));
  }

  get alive(): string {
    return join(this.path, 'alive');
  }
  get log(): string {
    return join(this.path, 'proxy.log');
  }
  get notify(): string {
    return join(this.path, 'notify.sock');
  }

  create(): void {
    mkdirSync(this.path, { recursive: true, mode: 0o700 });
  }

  write(meta: CommandMeta): void {
    writeAtomically(join(this.path, 'meta.json'), `${JSON.stringify(meta, null, 2)}\n`);
  }

  read(): CommandMeta | undefined {
    try {
      return JSON.parse(readFileSync(join(this.path, 'meta.json'), 'utf8')) as CommandMeta;
    } catch {
      return undefined;
    }
  }

  logTail(lines = 5): string {
    try {
      return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
    } catch {
      return '';
    }
  }

  /** In the order of their numbers. */
  static all(root: string): CommandFolder[] {
    try {
      return readdirSync(root)
        .filter((name) => /^\d{1,15}$/.test(name))
        .map((name) => new CommandFolder(root, Number(name)))
        .sort((a, b) => a.epoch - b.epoch);
    } catch {
      return [];
    }
  }
}

const END_BOUND_MS = 5_000;

/** One run of a proxy that is not Envoy. The kernel is its only witness. */
export class CommandEpoch {
  readonly folder: CommandFolder;
  readonly group: ProcessGroup;
  readonly gone: Promise<void>;
  drain: DrainWatch | undefined;
  /** Its end is wanted: no crash. */
  ending = false;
  #meta: CommandMeta;
  readonly #stopWatching: () => void;

  constructor(folder: CommandFolder, meta: CommandMeta, log: Log) {
    this.folder = folder;
    this.#meta = meta;
    this.group = new ProcessGroup({ pid: meta.pid, startTime: meta.startTime }, meta.addresses);
    const watch = watchAlive(folder.alive, this.group.main);
    this.gone = watch.gone;
    this.#stopWatching = watch.stop;
    void watch.gone.then(() => log('info', 'epoch ended', { epoch: meta.epoch, pid: meta.pid, wanted: this.ending }));
  }

  get meta(): CommandMeta {
    return this.#meta;
  }
  get number(): number {
    return this.#meta.epoch;
  }

  /** On disk before it returns. */
  update(change: Partial<CommandMeta>): void {
    this.#meta = { ...this.#meta, ...change };
    this.folder.write(this.#meta);
  }

  status(slot: string): EpochStatus {
    const m = this.#meta;
    const upgradeId = m.endedBy ?? m.createdBy;
    return {
      epoch: m.epoch,
      slot,
      state: m.state,
      version: m.version,
      binary: m.binary,
      bootstrap: m.config,
      pid: m.pid,
      startedAt: m.startedAt,
      method: 'listen-fd',
      ...(m.drainingSince !== undefined && { drainingSince: m.drainingSince }),
      ...(upgradeId !== undefined && { upgradeId }),
      ...(this.drain?.verdict && { verdict: this.drain.verdict }),
      ...(m.order && { orderVersion: m.order.version }),
    };
  }

  sources(now: () => number): DrainSources {
    let sockets: readonly KernelSocket[] = [];
    const firstSeen = new Map<number, number>();
    const none = (name: 'filter' | 'admin', why: string) => ({ name, at: now(), why });
    return {
      kernel: async () => {
        const seen = this.group.witness(now());
        sockets = seen.sockets;
        return seen.witness;
      },
      admin: async () => ({ witness: none('admin', 'this proxy is not Envoy') }),
      filter: () => ({ witness: none('filter', 'this proxy is not Envoy'), connections: [] }),
      kernelList: () => sockets.map((socket) => this.#connection(socket, firstSeen, now())),
      // The proxy itself tells its connections to leave; which of them are idle, only it knows.
      close: () => {},
      cost: (at) => this.group.cost(at),
    };
  }

  /** As TCP: the kernel knows no more than that it is open, so each is waited for, and named when it is cut. */
  #connection({ inode, local, peer }: KernelSocket, firstSeen: Map<number, number>, now: number): Connection {
    const openedAt = firstSeen.get(inode) ?? now;
    firstSeen.set(inode, openedAt);
    return { epoch: this.number, id: String(inode), peer, local, listener: local, protocol: 'tcp', openedAt };
  }

  /** Ends it: the end signal, SIGKILL to all of its processes after a bound. Resolves when they are gone. */
  async end(name: NodeJS.Signals): Promise<void> {
    this.ending = true;
    this.drain?.stop();
    this.group.signal(name);
    const timer = setTimeout(() => this.group.kill(), END_BOUND_MS);
    await this.gone;
    clearTimeout(timer);
    this.release();
    this.update({ state: 'ended' });
  }

  /** At once, for one that never served. */
  async kill(): Promise<void> {
    this.ending = true;
    this.group.kill();
    await this.gone;
    this.release();
    this.update({ state: 'ended' });
  }

  /** Lets go of it; it lives on. */
  release(): void {
    this.drain?.stop();
    this.#stopWatching();
  }
}
