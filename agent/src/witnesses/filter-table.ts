import {
  type ClosedBy,
  type Command,
  type Connection,
  type DrainOrder,
  parseDrainOrder,
  type Report,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import { VmTable } from './filter-vm.ts';
import type { Tally, VmTally } from './unknown-requests.ts';

/** A VM with nothing open is heard every 5 s, any other every second. */
const VM_SILENT_MS = 15_000;
const MAX_VMS = 1024;
const MAX_CONNECTIONS = 200_000;
/** 9 bytes each; a reply has a bound, what is left goes with the next one. */
const MAX_COMMANDS_PER_REPLY = 4_096;
const MAX_INTERNED = 4_096;

export interface FilterTableOptions {
  readonly now?: () => number;
  readonly maxVms?: number;
  readonly maxConnections?: number;
}

/**
 * The connections of one epoch as its filter reports them: one partition per VM. Never throws on a report; one that
 * contradicts itself or an earlier one is counted in `faults` and answered with the request for a snapshot.
 */
export class FilterTable {
  readonly epoch: number;
  /** Connections, counters or an order version changed. */
  onChange: () => void = () => {};
  /** A newer order was relayed by the filter. */
  onOrder: (order: DrainOrder) => void = () => {};
  /** Called with each fault; repeated ones too. */
  onFault: (message: string) => void = () => {};
  faults = 0;
  lastFault: string | undefined;
  /** Ends that were reported, by who ended the connection. */
  readonly closedBy: Record<ClosedBy, number> = { unknown: 0, envoy: 0, peer: 0, command: 0 };

  readonly #vms = new Map<string, VmTable>();
  readonly #now: () => number;
  readonly #maxVms: number;
  readonly #maxConnections: number;
  #held = 0;
  #interned = new Map<string, string>();
  #order: DrainOrder | undefined;
  /** Version of the order that began the drain in force: from it on, no request begins unseen. */
  #drainedBy: number | undefined;
  #subscribedUntil = 0;
  #lastHeardAt: number | undefined;
  #waiting = new Set<() => void>();

  constructor(epoch: number, options: FilterTableOptions = {}) {
    this.epoch = epoch;
    this.#now = options.now ?? Date.now;
    this.#maxVms = options.maxVms ?? MAX_VMS;
    this.#maxConnections = options.maxConnections ?? MAX_CONNECTIONS;
  }

  /** Takes one report of this epoch; what to answer. */
  apply(report: Report, now: number = this.#now()): Command[] {
    this.expire(now);
    if (report.epoch !== this.epoch) {
      this.#fault(`a report of epoch ${report.epoch} came to the table of epoch ${this.epoch}`);
      return [];
    }
    const vm = this.#vm(report.vm);
    if (vm === undefined) {
      this.#fault(`more than ${this.#maxVms} VMs`);
      return [];
    }
    const commands: Command[] = [];
    this.#held -= vm.connections.size;
    // The VM asks room() while its own records are added: count them there.
    const changed = vm.apply(report, now, commands);
    this.#held += vm.connections.size;
    this.#lastHeardAt = now;
    for (const record of report.records) {
      if (record.kind === 'order') this.#takeOrder(record.json, commands);
      else if (record.kind === 'close') this.closedBy[record.by]++;
    }
    this.#command(vm, report, now, commands);
    if (changed) this.onChange();
    for (const look of [...this.#waiting]) look();
    return commands;
  }

  /** Everything known one by one. In the steady state, without a subscription, nothing is. */
  connections(): Connection[] {
    const all: Connection[] = [];
    for (const vm of this.#vms.values()) for (const c of vm.connections.values()) all.push(c);
    return all;
  }

  /** Open connections by the VMs' own count; known in the steady state too. */
  open(): number {
    let sum = 0;
    for (const vm of this.#vms.values()) sum += vm.open;
    return sum;
  }

  /** Every open connection is known one by one, and none that is not open. */
  complete(): boolean {
    for (const vm of this.#vms.values()) if (vm.open > 0 && vm.state !== 'complete') return false;
    return this.#vms.size > 0;
  }

  /** When the VM that holds connections and was heard least recently was heard; any VM's when none holds any. */
  get heardAt(): number | undefined {
    let oldest: number | undefined;
    for (const vm of this.#vms.values()) if (vm.open > 0) oldest = Math.min(oldest ?? vm.heardAt, vm.heardAt);
    return oldest ?? this.#lastHeardAt;
  }

  order(): DrainOrder | undefined {
    return this.#order;
  }

  /** Every VM with connections applies this order version or a newer one. */
  orderReached(version: number): boolean {
    // Version 0, the agent's own order, is told from none by the flag.
    const has = (vm: VmTable) =>
      vm.orderVersion > version || (vm.orderVersion === version && (version > 0 || vm.draining));
    for (const vm of this.#vms.values()) if (vm.open > 0 && !has(vm)) return false;
    return this.#vms.size > 0;
  }

  /** What each VM knows of requests; see UnknownRequests. */
  tally(): Tally {
    const vms = new Map<string, VmTally>();
    for (const vm of this.#vms.values())
      vms.set(vm.id, { inFlight: vm.inFlight(), ended: vm.requestsEnded, saidAt: vm.saidAt });
    const drainedBy = this.#drainedBy;
    return { vms, ...(drainedBy !== undefined && this.orderReached(drainedBy) && { sinceOrder: drainedBy }) };
  }

  /** Asks every VM to report each change from its next report on, for so long. */
  subscribe(ms: number, now: number = this.#now()): void {
    this.#subscribedUntil = Math.max(this.#subscribedUntil, now + ms);
  }

  /**
   * Resolves when every connection is known one by one. Throws TIMEOUT after `ms`. `atLeast`: so many are open, as another
   * witness knows; a VM that was quiet may have said "none" seconds ago.
   */
  async snapshot(ms: number, atLeast = 0): Promise<void> {
    this.subscribe(ms + 5_000);
    const there = () => this.complete() && this.open() >= atLeast;
    if (there()) return;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => there() && resolve();
    const timer = setTimeout(() => {
      reject(new SluiceError('TIMEOUT', `expected a snapshot of epoch ${this.epoch} within ${ms} ms, found none`));
    }, ms);
    this.#waiting.add(look);
    await promise.finally(() => {
      clearTimeout(timer);
      this.#waiting.delete(look);
    });
  }

  /** Has these connections closed by the VM that holds them; ids that none holds are ignored. */
  close(ids: Iterable<string>): void {
    for (const id of ids) for (const vm of this.#vms.values()) if (vm.connections.has(id)) vm.toClose.add(id);
  }

  /**
   * The filter can choose: every VM that holds connections knows mark and cut. A filter from before them does not, and what
   * mark does needs an Envoy whose Lua can ask for it too (contract: leaveTypedConfig).
   */
  get marks(): boolean {
    for (const vm of this.#vms.values()) if (vm.open > 0 && !vm.canMark) return false;
    return this.#vms.size > 0;
  }

  /**
   * Has these connections told to leave with their next response; repeated until they end, so that no lost reply undoes it.
   * Ids that no VM with `marks` holds are ignored.
   */
  mark(ids: Iterable<string>): void {
    for (const id of ids) for (const vm of this.#vms.values()) vm.mark(id);
  }

  /** Has these connections closed, requests in flight or not. Ids that no VM with `marks` holds are ignored. */
  cut(ids: Iterable<string>): void {
    for (const id of ids) for (const vm of this.#vms.values()) vm.cut(id);
  }

  /** Forgets the VMs that said nothing for long: a VM that trapped was replaced by another one, or by none. */
  expire(now: number): void {
    for (const vm of this.#vms.values()) {
      if (now - vm.heardAt < VM_SILENT_MS) continue;
      this.#vms.delete(vm.id);
      this.#held -= vm.connections.size;
      if (vm.open > 0) this.onChange();
    }
  }

  #vm(id: string): VmTable | undefined {
    const known = this.#vms.get(id);
    if (known !== undefined || this.#vms.size >= this.#maxVms) return known;
    const vm: VmTable = new VmTable(id, {
      epoch: this.epoch,
      room: () => this.#held + vm.connections.size < this.#maxConnections,
      intern: (text) => this.#intern(text),
      fault: (message) => this.#fault(message),
    });
    this.#vms.set(id, vm);
    return vm;
  }

  #command(vm: VmTable, report: Report, now: number, commands: Command[]): void {
    // Renewed at half time, or at once when the VM does not track although it was told to (its VM is a new one).
    const left = this.#subscribedUntil - now;
    if (left > 0 && (!report.tracking || vm.subscribedUntil - now < left / 2)) {
      vm.subscribedUntil = this.#subscribedUntil;
      commands.push({ type: 'subscribe', ms: left });
    }
    const say = (type: 'close' | 'mark' | 'cut', ids: Set<string>) => {
      for (const id of ids) {
        if (commands.length >= MAX_COMMANDS_PER_REPLY) return;
        ids.delete(id);
        if (vm.connections.has(id)) commands.push({ type, id });
      }
    };
    // While its connections are not known, after a gap, they wait: what it holds is asked for and comes next.
    if (vm.state === 'complete') {
      say('mark', vm.marks.unsaid);
      say('cut', vm.cuts.unsaid);
    }
    say('close', vm.toClose);
  }

  #takeOrder(json: string, commands: Command[]): void {
    let order: DrainOrder;
    try {
      order = parseDrainOrder(json);
    } catch (error) {
      this.#fault(toSluiceError(error).message);
      return;
    }
    if (order.epoch !== this.epoch) {
      this.#fault(`a drain order for epoch ${order.epoch} came from epoch ${this.epoch}`);
      return;
    }
    commands.push({ type: 'ackOrder', version: order.version });
    if (order.version <= (this.#order?.version ?? -1)) return;
    this.#order = order;
    this.#drainedBy = order.action === 'drain' ? (this.#drainedBy ?? order.version) : undefined;
    if (order.action === 'stop') for (const vm of this.#vms.values()) vm.unmark();
    this.onOrder(order);
  }

  #intern(text: string): string {
    const known = this.#interned.get(text);
    if (known !== undefined) return known;
    if (this.#interned.size >= MAX_INTERNED) this.#interned.clear();
    this.#interned.set(text, text);
    return text;
  }

  #fault(message: string): void {
    this.faults++;
    this.lastFault = message;
    this.onFault(message);
  }
}
