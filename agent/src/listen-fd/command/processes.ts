import { readdirSync, readFileSync } from 'node:fs';
import type { EpochCost, Witness } from '@sluice/contract';
import { costOf } from '../../epochs/cost.ts';
import { identify, isAlive, type ProcessId, signal } from '../../epochs/proc.ts';
import { type KernelSocket, KernelWitness, readListenAddresses } from '../../witnesses/kernel.ts';

/**
 * The processes of one proxy: the one that was started and all below it (a master has workers). What was once seen is kept
 * while it lives, because a worker that outlives its master is nobody's child any more.
 */
export class ProcessGroup {
  readonly main: ProcessId;
  readonly #addresses: readonly string[];
  readonly #below = new Map<number, ProcessId>();
  readonly #witnesses = new Map<number, KernelWitness>();
  /** They do not accept, and will not again: not looked at anew, for it means to read each descriptor. */
  #stopped = false;

  /** `addresses`: where it listens, or listened. */
  constructor(main: ProcessId, addresses: readonly string[]) {
    this.main = main;
    this.#addresses = addresses;
  }

  living(): ProcessId[] {
    for (const pid of descendants(this.main.pid)) {
      const found = identify(pid);
      if (found) this.#below.set(pid, found);
    }
    for (const [pid, one] of this.#below) {
      if (isAlive(one)) continue;
      this.#below.delete(pid);
      this.#witnesses.delete(pid);
    }
    return [...(isAlive(this.main) ? [this.main] : []), ...this.#below.values()];
  }

  /**
   * Whether one of them accepts. A master keeps the inherited sockets open all its life and never accepts (HAProxy,
   * src/sock.c, sock_unbind): where there are workers, only they count.
   */
  accepts(): boolean {
    const living = this.living();
    const workers = living.length > 1 ? living.filter(({ pid }) => pid !== this.main.pid) : living;
    return workers.some((one) => this.#listens(one));
  }

  /** One that lives and can not be looked at is not taken for one that has stopped. */
  #listens(one: ProcessId): boolean {
    try {
      return readListenAddresses(one.pid).some((address) => this.#addresses.includes(address));
    } catch {
      return isAlive(one);
    }
  }

  /** Their downstream connections, each once, as the kernel lists them. Throws what can not be read of a living one. */
  sockets(): KernelSocket[] {
    const found = new Map<number, KernelSocket>();
    for (const one of this.living()) {
      const witness = this.#witnesses.get(one.pid) ?? new KernelWitness(one.pid, this.#addresses);
      this.#witnesses.set(one.pid, witness);
      try {
        for (const socket of witness.read().sockets) found.set(socket.inode, socket);
      } catch (error) {
        if (isAlive(one)) throw error; // else: no process holds no socket
      }
    }
    return [...found.values()];
  }

  /** The kernel's word on them once they were told to stop; `sockets` are those that it counted. */
  witness(at: number): { readonly witness: Witness; readonly sockets: readonly KernelSocket[] } {
    try {
      // One that accepts can have a connection more at the next look: its count is no basis for an end.
      this.#stopped ||= !this.accepts();
      if (!this.#stopped) return { witness: { name: 'kernel', at, why: 'it accepts still' }, sockets: [] };
      const sockets = this.sockets();
      return { witness: { name: 'kernel', at, open: sockets.length }, sockets };
    } catch (error) {
      return { witness: { name: 'kernel', at, why: (error as Error).message }, sockets: [] };
    }
  }

  /** What they cost together; undefined when none can be looked at. */
  cost(at: number): EpochCost | undefined {
    const costs = this.living().flatMap(({ pid }) => costOf(pid, at) ?? []);
    if (costs.length === 0) return undefined;
    const sum = (of: (cost: EpochCost) => number) => costs.reduce((total, cost) => total + of(cost), 0);
    return { at, residentBytes: sum((c) => c.residentBytes), privateBytes: sum((c) => c.privateBytes) };
  }

  /** To the started one alone: a master passes it on. */
  signal(name: NodeJS.Signals): void {
    signal(this.main, name);
  }

  /** To all of them, the started one first, so that it starts none anew. */
  kill(): void {
    for (const one of this.living()) signal(one, 'SIGKILL');
  }
}

function descendants(pid: number): number[] {
  const found: number[] = [];
  const seek = (parent: number): void => {
    for (const child of childrenOf(parent)) {
      found.push(child);
      seek(child);
    }
  };
  seek(pid);
  return found;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'latin1').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    return []; // it is gone
  }
}
