import { PROTOCOLS, type Protocol } from './connections.ts';
import { SluiceError } from './errors.ts';
import {
  CLOSED_BY,
  type ClosedBy,
  COMMAND,
  FLAG,
  MAX_ORDER_BYTES,
  MAX_REPLY_BYTES,
  MAX_REPORT_BYTES,
  NOT_KNOWN,
  RECORD,
  REPLY_MAGIC,
  REPORT_MAGIC,
  REPORT_VERSION,
} from './report.ts';
import { invalid, Reader, Writer } from './report-bytes.ts';

/** What a record says of a connection beyond who it is. Times are epoch milliseconds; undefined = not known, none. */
export interface ConnectionState {
  readonly protocol: Protocol;
  readonly inFlight?: number;
  readonly bytes: number;
  readonly lastActivityAt?: number;
}

export interface OpenRecord extends ConnectionState {
  readonly kind: 'open';
  readonly id: string;
  readonly openedAt: number;
  readonly tls: boolean;
  readonly listener: string;
  readonly peer: string;
  readonly local: string;
}

export interface UpdateRecord extends ConnectionState {
  readonly kind: 'update';
  readonly id: string;
}

export interface CloseRecord {
  readonly kind: 'close';
  readonly id: string;
  readonly by: ClosedBy;
  readonly at: number;
}

export interface OrderRecord {
  readonly kind: 'order';
  readonly json: string;
}

export interface RouteRecord {
  readonly kind: 'route';
  readonly id: string;
  /** Empty: the newest request's route has no name. */
  readonly route: string;
}

export type ReportRecord = OpenRecord | UpdateRecord | CloseRecord | OrderRecord | RouteRecord;

/** A decoded report; see report.ts for the meaning of each field. */
export interface Report {
  readonly snapshotFirst: boolean;
  readonly snapshotLast: boolean;
  readonly draining: boolean;
  readonly tracking: boolean;
  readonly more: boolean;
  /** False: a filter from before mark and cut; neither may be sent to it. */
  readonly marks: boolean;
  readonly epoch: number;
  readonly seq: number;
  /** Decimal, because it is a u64. */
  readonly vm: string;
  readonly now: number;
  readonly orderVersion: number;
  readonly open: number;
  readonly openedTotal: number;
  readonly closedTotal: number;
  readonly requestsEnded: number;
  readonly records: readonly ReportRecord[];
}

export type Command =
  | { readonly type: 'subscribe'; readonly ms: number }
  | { readonly type: 'close' | 'mark' | 'cut'; readonly id: string }
  | { readonly type: 'ackOrder'; readonly version: number }
  | { readonly type: 'snapshot' };

function readState(r: Reader): ConnectionState {
  const number = r.u8('protocol');
  const protocol = PROTOCOLS[number];
  if (protocol === undefined) throw invalid(`protocol below ${PROTOCOLS.length}`, String(number));
  const inFlight = r.u32('inFlight');
  const bytes = r.count('bytes');
  const lastActivityAt = r.time('lastActivity');
  return {
    protocol,
    bytes,
    ...(inFlight === NOT_KNOWN ? {} : { inFlight }),
    ...(lastActivityAt === 0 ? {} : { lastActivityAt }),
  };
}

function readRecord(r: Reader): ReportRecord {
  const kind = r.u8('record kind');
  switch (kind) {
    case RECORD.open: {
      const id = String(r.u64('id'));
      const openedAt = r.time('openedAt');
      // The protocol byte stands before flags and strings, the rest of the state after them.
      const protocol = r.u8('protocol');
      if (PROTOCOLS[protocol] === undefined) throw invalid(`protocol below ${PROTOCOLS.length}`, String(protocol));
      const tls = (r.u8('flags') & 1) !== 0;
      const listener = r.str('listener');
      const peer = r.str('peer');
      const local = r.str('local');
      const inFlight = r.u32('inFlight');
      const bytes = r.count('bytes');
      const lastActivityAt = r.time('lastActivity');
      return {
        kind: 'open',
        id,
        openedAt,
        protocol: PROTOCOLS[protocol],
        tls,
        listener,
        peer,
        local,
        bytes,
        ...(inFlight === NOT_KNOWN ? {} : { inFlight }),
        ...(lastActivityAt === 0 ? {} : { lastActivityAt }),
      };
    }
    case RECORD.update:
      return { kind: 'update', id: String(r.u64('id')), ...readState(r) };
    case RECORD.close: {
      const id = String(r.u64('id'));
      const number = r.u8('by');
      const by = CLOSED_BY[number];
      if (by === undefined) throw invalid(`closed by below ${CLOSED_BY.length}`, String(number));
      return { kind: 'close', id, by, at: r.time('at') };
    }
    case RECORD.order: {
      const length = r.u32('order length');
      if (length > MAX_ORDER_BYTES) throw invalid(`an order of at most ${MAX_ORDER_BYTES} bytes`, String(length));
      return { kind: 'order', json: r.text(length, 'order') };
    }
    case RECORD.route:
      return { kind: 'route', id: String(r.u64('id')), route: r.str('route') };
    default:
      throw invalid('a record of kind 1 to 5', String(kind));
  }
}

/**
 * Decodes one report. Throws SluiceError REPORT_INVALID on anything that is not exactly the form of report.ts; what is
 * allocated is bounded by the bytes that are there, never by a count that they claim.
 */
export function decodeReport(bytes: Uint8Array): Report {
  if (bytes.length > MAX_REPORT_BYTES) throw invalid(`at most ${MAX_REPORT_BYTES} bytes`, String(bytes.length));
  const r = new Reader(bytes);
  const magic = r.text(4, 'magic');
  if (magic !== REPORT_MAGIC) throw invalid(`magic ${REPORT_MAGIC}`, JSON.stringify(magic));
  const version = r.u16('version');
  if (version !== REPORT_VERSION) throw invalid(`version ${REPORT_VERSION}`, String(version));
  const flags = r.u16('flags');
  const header = {
    snapshotFirst: (flags & FLAG.snapshotFirst) !== 0,
    snapshotLast: (flags & FLAG.snapshotLast) !== 0,
    draining: (flags & FLAG.draining) !== 0,
    tracking: (flags & FLAG.tracking) !== 0,
    more: (flags & FLAG.more) !== 0,
    marks: (flags & FLAG.marks) !== 0,
    epoch: r.u32('epoch'),
    seq: r.u32('seq'),
    vm: String(r.u64('vm')),
    now: r.time('now'),
    orderVersion: r.count('orderVersion'),
    open: r.u32('open'),
    openedTotal: r.count('openedTotal'),
    closedTotal: r.count('closedTotal'),
    requestsEnded: r.count('requestsEnded'),
  };
  const count = r.u32('records');
  const records: ReportRecord[] = [];
  for (let i = 0; i < count; i++) records.push(readRecord(r));
  if (r.left !== 0) throw invalid(`the end after ${count} records`, `${r.left} more bytes`);
  return { ...header, records };
}

/** The filter's side of decodeReport, for tests and simulated filters. Times have to be whole milliseconds. */
export function encodeReport(report: Report): Uint8Array {
  const w = new Writer();
  w.text(Buffer.from(REPORT_MAGIC));
  w.u16(REPORT_VERSION);
  let flags = 0;
  for (const name of ['snapshotFirst', 'snapshotLast', 'draining', 'tracking', 'more', 'marks'] as const)
    if (report[name]) flags |= FLAG[name];
  w.u16(flags);
  w.u32(report.epoch);
  w.u32(report.seq);
  w.u64(report.vm);
  w.time(report.now);
  w.u64(report.orderVersion);
  w.u32(report.open);
  w.u64(report.openedTotal);
  w.u64(report.closedTotal);
  w.u64(report.requestsEnded);
  w.u32(report.records.length);
  for (const record of report.records) writeRecord(w, record);
  return w.done();
}

function writeRecord(w: Writer, record: ReportRecord): void {
  w.u8(RECORD[record.kind]);
  if (record.kind === 'order') {
    const bytes = Buffer.from(record.json);
    w.u32(bytes.length);
    w.text(bytes);
    return;
  }
  w.u64(record.id);
  if (record.kind === 'route') {
    w.str(record.route);
    return;
  }
  if (record.kind === 'close') {
    w.u8(CLOSED_BY.indexOf(record.by));
    w.time(record.at);
    return;
  }
  if (record.kind === 'open') w.time(record.openedAt);
  w.u8(PROTOCOLS.indexOf(record.protocol));
  if (record.kind === 'open') {
    w.u8(record.tls ? 1 : 0);
    w.str(record.listener);
    w.str(record.peer);
    w.str(record.local);
  }
  w.u32(record.inFlight ?? NOT_KNOWN);
  w.u64(record.bytes);
  w.time(record.lastActivityAt);
}

/**
 * The body of a reply; empty when there is no command. Throws TOO_LARGE past MAX_REPLY_BYTES: the caller decides what
 * waits (a close, mark or cut is 9 bytes, nothing else repeats).
 */
export function encodeReply(commands: readonly Command[]): Uint8Array {
  if (commands.length === 0) return new Uint8Array(0);
  const w = new Writer();
  w.text(Buffer.from(REPLY_MAGIC));
  w.u16(REPORT_VERSION);
  w.u16(commands.length);
  for (const command of commands) {
    w.u8(COMMAND[command.type]);
    if (command.type === 'subscribe') w.u32(command.ms);
    else if (command.type === 'ackOrder') w.u64(command.version);
    else if (command.type !== 'snapshot') w.u64(command.id);
  }
  if (commands.length > 0xffff || w.length > MAX_REPLY_BYTES)
    throw new SluiceError('TOO_LARGE', `expected a reply of at most ${MAX_REPLY_BYTES} bytes, found ${w.length}`);
  return w.done();
}

/** The filter's side of encodeReply, for tests and simulated filters. Throws REPORT_INVALID. */
export function decodeReply(bytes: Uint8Array): Command[] {
  if (bytes.length === 0) return [];
  const r = new Reader(bytes);
  const magic = r.text(4, 'magic');
  if (magic !== REPLY_MAGIC) throw invalid(`magic ${REPLY_MAGIC}`, JSON.stringify(magic));
  const version = r.u16('version');
  if (version !== REPORT_VERSION) throw invalid(`version ${REPORT_VERSION}`, String(version));
  const count = r.u16('count');
  const commands: Command[] = [];
  for (let i = 0; i < count; i++) {
    const type = r.u8('command');
    if (type === COMMAND.subscribe) commands.push({ type: 'subscribe', ms: r.u32('ms') });
    else if (type === COMMAND.close) commands.push({ type: 'close', id: String(r.u64('id')) });
    else if (type === COMMAND.ackOrder) commands.push({ type: 'ackOrder', version: r.count('version') });
    else if (type === COMMAND.snapshot) commands.push({ type: 'snapshot' });
    else if (type === COMMAND.mark) commands.push({ type: 'mark', id: String(r.u64('id')) });
    else if (type === COMMAND.cut) commands.push({ type: 'cut', id: String(r.u64('id')) });
    else throw invalid('a command of 1 to 6', String(type));
  }
  if (r.left !== 0) throw invalid(`the end after ${count} commands`, `${r.left} more bytes`);
  return commands;
}
