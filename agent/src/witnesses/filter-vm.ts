import type { Command, Connection, ConnectionState, OpenRecord, Report, ReportRecord } from '@sluice/contract';

/** A gap or a mismatch asks for a snapshot, but not with every report: a filter that lies must not be kept busy. */
const ASK_AGAIN_MS = 500;

/**
 * The connections that one command is about, from the wish for it to their end. A reply may be lost, and the filter's word
 * for that is a snapshot: everything is then said again (mark and cut may be repeated).
 */
export class Asked {
  readonly ids = new Set<string>();
  readonly unsaid = new Set<string>();

  add(id: string): void {
    if (this.ids.has(id)) return;
    this.ids.add(id);
    this.unsaid.add(id);
  }

  delete(id: string): void {
    this.ids.delete(id);
    this.unsaid.delete(id);
  }

  sayAgain(): void {
    for (const id of this.ids) this.unsaid.add(id);
  }

  clear(): void {
    this.ids.clear();
    this.unsaid.clear();
  }
}

/** What the table gives its VMs: what all of them share. */
export interface VmHost {
  readonly epoch: number;
  /** False when no further connection may be held; the VM is then known by its counters only. */
  readonly room: () => boolean;
  /** The same text as one object, so that 10,000 connections of one listener hold its name once. */
  readonly intern: (text: string) => string;
  readonly fault: (message: string) => void;
}

/**
 * The connections of one VM, that is of one worker thread, as its reports tell them.
 *
 *   counting  --snapshotFirst-->  loading  --snapshotLast, as many as `open` says-->  complete
 *      ^--- a heartbeat without tracking; a gap in seq, an unknown id, a wrong count (asks for a snapshot) ---'
 */
export class VmTable {
  readonly id: string;
  readonly connections = new Map<string, Connection>();
  readonly toClose = new Set<string>();
  readonly marks = new Asked();
  readonly cuts = new Asked();
  /** Its filter obeys mark and cut. */
  canMark = false;
  state: 'counting' | 'loading' | 'complete' = 'counting';
  heardAt = 0;
  open = 0;
  openedTotal = 0;
  closedTotal = 0;
  requestsEnded = 0;
  /** The VM's clock at its last report; the same clock as ours, for it is the same machine. */
  saidAt = 0;
  orderVersion = 0;
  draining = false;
  /** Until when the VM was told to track. */
  subscribedUntil = 0;
  #seq: number | undefined;
  #askedAt = Number.NEGATIVE_INFINITY;
  readonly #host: VmHost;

  constructor(id: string, host: VmHost) {
    this.id = id;
    this.#host = host;
  }

  /** Requests in flight as of `saidAt`, of those that the filter knows; a lower bound while the table has gaps. */
  inFlight(): number {
    if (this.state !== 'complete') return 0;
    let sum = 0;
    for (const c of this.connections.values()) sum += c.inFlight ?? 0;
    return sum;
  }

  /** Takes a report of this VM; adds what must be asked of it to `commands`. Returns true when anything changed. */
  apply(report: Report, now: number, commands: Command[]): boolean {
    const inOrder = this.#seq === undefined || report.seq === (this.#seq + 1) >>> 0;
    let changed =
      this.open !== report.open || this.orderVersion !== report.orderVersion || this.draining !== report.draining;
    this.#seq = report.seq;
    this.heardAt = now;
    this.open = report.open;
    this.openedTotal = report.openedTotal;
    this.closedTotal = report.closedTotal;
    this.requestsEnded = report.requestsEnded;
    this.saidAt = report.now;
    this.orderVersion = report.orderVersion;
    this.draining = report.draining;
    this.canMark = report.marks;

    if (!report.tracking) {
      changed ||= this.connections.size > 0;
      this.#forget();
      return changed;
    }
    if (report.snapshotFirst) {
      this.#forget();
      this.state = 'loading';
      this.marks.sayAgain();
      this.cuts.sayAgain();
    } else if (!inOrder) {
      // What was lost may have been an end: nothing held is sure any more.
      this.#forget();
      changed = true;
    }
    for (const record of report.records) changed = this.#take(record) || changed;
    if (report.snapshotLast && this.state === 'loading') this.#completed();
    if (this.state === 'complete' && !report.more && this.connections.size !== report.open) {
      this.#doubt(`vm ${this.id} says ${report.open} open and told of ${this.connections.size}`);
      changed = true;
    }
    if (this.state === 'counting' && now - this.#askedAt >= ASK_AGAIN_MS) {
      this.#askedAt = now;
      commands.push({ type: 'snapshot' });
    }
    return changed;
  }

  mark(id: string): void {
    const known = this.connections.get(id);
    if (!this.canMark || known === undefined || known.marked) return;
    this.marks.add(id);
    this.connections.set(id, { ...known, marked: true });
  }

  cut(id: string): void {
    if (this.canMark && this.connections.has(id)) this.cuts.add(id);
  }

  /** No connection is to leave any more; the filter's VM unmarks its own by the same order. */
  unmark(): void {
    for (const id of this.marks.ids) {
      const known = this.connections.get(id);
      if (known === undefined) continue;
      const { marked: _, ...rest } = known;
      this.connections.set(id, rest);
    }
    this.marks.clear();
  }

  #completed(): void {
    this.state = 'complete';
    // Their end fell into what was lost.
    for (const asked of [this.marks, this.cuts])
      for (const id of asked.ids) if (!this.connections.has(id)) asked.delete(id);
  }

  #take(record: ReportRecord): boolean {
    // After a gap, records wait for the snapshot that says it all.
    if (record.kind === 'order' || this.state === 'counting') return false;
    switch (record.kind) {
      case 'open':
        if (!this.connections.has(record.id) && !this.#host.room()) {
          this.#doubt('more connections than this table may hold');
          return true;
        }
        this.connections.set(record.id, this.#connection(record));
        return true;
      case 'update': {
        const known = this.connections.get(record.id);
        if (known) this.connections.set(record.id, { ...lasting(known), ...volatile(record) });
        else this.#doubt(`vm ${this.id} reports on connection ${record.id}, which it never opened`);
        return true;
      }
      case 'route': {
        const known = this.connections.get(record.id);
        if (known) this.connections.set(record.id, this.#routed(known, record.route));
        else this.#doubt(`vm ${this.id} tells a route of connection ${record.id}, which it never opened`);
        return true;
      }
      case 'close':
        this.toClose.delete(record.id);
        this.marks.delete(record.id);
        this.cuts.delete(record.id);
        if (!this.connections.delete(record.id))
          this.#doubt(`vm ${this.id} closes connection ${record.id}, which it never opened`);
        return true;
    }
  }

  #connection(record: OpenRecord): Connection {
    return {
      epoch: this.#host.epoch,
      id: record.id,
      peer: record.peer,
      local: this.#host.intern(record.local),
      listener: this.#host.intern(record.listener),
      openedAt: record.openedAt,
      ...(this.marks.ids.has(record.id) && { marked: true }),
      ...volatile(record),
    };
  }

  #routed(known: Connection, route: string): Connection {
    const { route: _, ...rest } = known;
    return route === '' ? rest : { ...rest, route: this.#host.intern(route) };
  }

  #doubt(why: string): void {
    this.#host.fault(why);
    this.#forget();
  }

  #forget(): void {
    this.connections.clear();
    this.state = 'counting';
  }
}

/** All that an update does not tell anew. */
function lasting(c: Connection): Omit<Connection, keyof ConnectionState> {
  const { protocol: _protocol, inFlight: _inFlight, bytes: _bytes, lastActivityAt: _lastActivityAt, ...rest } = c;
  return rest;
}

/** Bytes are counted where requests are: 0 before one was seen says nothing. */
function volatile(s: ConnectionState) {
  return {
    protocol: s.protocol,
    ...(s.inFlight !== undefined && { bytes: s.bytes }),
    ...(s.inFlight !== undefined && { inFlight: s.inFlight }),
    ...(s.lastActivityAt !== undefined && { lastActivityAt: s.lastActivityAt }),
  };
}
