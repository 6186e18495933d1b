import { join } from 'node:path';
import type { Connection, EpochStatus } from '@sluice/contract';
import type { DrainSources } from '../../epochs/drain-watch.ts';
import { LiveEpoch } from '../../epochs/live-epoch.ts';
import { type EpochNotes, epochNumbers, RunFolder } from '../../epochs/run-folder.ts';
import type { Log } from '../../log.ts';
import type { KernelSocket } from '../../witnesses/kernel.ts';
import { ProcessGroup } from './processes.ts';

/** The notes on an epoch of a proxy that is not Envoy. */
export interface CommandMeta extends EpochNotes {
  readonly config: string;
  readonly addresses: readonly string[];
  /** What served before the upgrade that created it. */
  readonly before?: { readonly binary: string; readonly config: string };
}

export class CommandFolder extends RunFolder<CommandMeta> {
  constructor(root: string, epoch: number) {
    super(root, epoch, 'proxy.log');
  }

  get notify(): string {
    return join(this.path, 'notify.sock');
  }

  /** In the order of their numbers. */
  static all(root: string): CommandFolder[] {
    return epochNumbers(root).map((epoch) => new CommandFolder(root, epoch));
  }
}

/** One run of a proxy that is not Envoy. The kernel is its only witness. */
export class CommandEpoch extends LiveEpoch<CommandMeta, CommandFolder> {
  readonly group: ProcessGroup;
  readonly #endSignal: NodeJS.Signals;

  constructor(folder: CommandFolder, meta: CommandMeta, { log, endSignal }: { log: Log; endSignal: NodeJS.Signals }) {
    super(folder, meta, log);
    this.group = new ProcessGroup(this.process, meta.addresses);
    this.#endSignal = endSignal;
  }

  protected startedWith(): Pick<EpochStatus, 'bootstrap' | 'method'> {
    return { bootstrap: this.meta.config, method: 'listen-fd' };
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

  countConnections(): number {
    return this.group.sockets().length;
  }

  protected askToEnd(): void {
    this.group.signal(this.#endSignal);
  }

  protected override forceEnd(): void {
    this.group.kill();
  }
}
