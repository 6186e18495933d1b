import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PROTOCOLS } from './connections.ts';
import { SluiceError } from './errors.ts';
import { CLOSED_BY, MAX_REPORT_BYTES, NOT_KNOWN } from './report.ts';
import {
  type Command,
  decodeReply,
  decodeReport,
  encodeReply,
  encodeReport,
  type Report,
  type ReportRecord,
} from './report-codec.ts';

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String);
const count = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const time = fc.integer({ min: 0, max: 4_102_444_800_000 });
const str = fc.string({ unit: 'binary', maxLength: 60 });

const state = fc
  .record({
    protocol: fc.constantFrom(...PROTOCOLS),
    bytes: count,
    inFlight: fc.option(
      u32.filter((n) => n !== NOT_KNOWN),
      { nil: undefined },
    ),
    lastActivityAt: fc.option(
      time.filter((t) => t > 0),
      { nil: undefined },
    ),
  })
  .map(({ inFlight, lastActivityAt, ...rest }) => ({
    ...rest,
    ...(inFlight === undefined ? {} : { inFlight }),
    ...(lastActivityAt === undefined ? {} : { lastActivityAt }),
  }));

const who = fc.record({ id: u64, openedAt: time, tls: fc.boolean(), listener: str, peer: str, local: str });
const record: fc.Arbitrary<ReportRecord> = fc.oneof(
  fc.tuple(who, state).map(([w, s]) => ({ kind: 'open' as const, ...w, ...s })),
  fc.tuple(u64, state).map(([id, s]) => ({ kind: 'update' as const, id, ...s })),
  fc.record({ kind: fc.constant('close' as const), id: u64, by: fc.constantFrom(...CLOSED_BY), at: time }),
  fc.record({ kind: fc.constant('order' as const), json: fc.string({ unit: 'binary', maxLength: 500 }) }),
  fc.record({ kind: fc.constant('route' as const), id: u64, route: str }),
);

const report: fc.Arbitrary<Report> = fc.record({
  snapshotFirst: fc.boolean(),
  snapshotLast: fc.boolean(),
  draining: fc.boolean(),
  tracking: fc.boolean(),
  more: fc.boolean(),
  marks: fc.boolean(),
  epoch: u32,
  seq: u32,
  vm: u64,
  now: time,
  orderVersion: count,
  open: u32,
  openedTotal: count,
  closedTotal: count,
  requestsEnded: count,
  records: fc.array(record, { maxLength: 20 }),
});

const command: fc.Arbitrary<Command> = fc.oneof(
  fc.record({ type: fc.constant('subscribe' as const), ms: u32 }),
  fc.record({ type: fc.constantFrom('close' as const, 'mark' as const, 'cut' as const), id: u64 }),
  fc.record({ type: fc.constant('ackOrder' as const), version: count }),
  fc.constant({ type: 'snapshot' as const }),
);

/** Decodes, or returns the error, which must be REPORT_INVALID. */
function decodesOrRefuses(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): boolean {
  try {
    decode(bytes);
    return true;
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    expect((error as SluiceError).code).toBe('REPORT_INVALID');
    return false;
  }
}

describe('report codec', () => {
  it('round-trips every report', () => {
    fc.assert(
      fc.property(report, (r) => {
        expect(decodeReport(encodeReport(r))).toEqual(r);
      }),
    );
  });

  it('round-trips every reply', () => {
    fc.assert(
      fc.property(fc.array(command), (c) => {
        expect(decodeReply(encodeReply(c))).toEqual(c);
      }),
    );
  });

  it('refuses every truncation', () => {
    fc.assert(
      fc.property(report, (r) => {
        const bytes = encodeReport(r);
        for (let length = 0; length < bytes.length; length++)
          expect(decodesOrRefuses(decodeReport, bytes.subarray(0, length))).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  it('refuses what follows the last record', () => {
    fc.assert(
      fc.property(report, fc.uint8Array({ minLength: 1, maxLength: 50 }), (r, tail) => {
        expect(decodesOrRefuses(decodeReport, Buffer.concat([encodeReport(r), tail]))).toBe(false);
      }),
    );
  });

  it('decodes or refuses every mutation, and throws nothing else', () => {
    fc.assert(
      fc.property(report, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 }), (r, changes) => {
        const bytes = Uint8Array.from(encodeReport(r));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        decodesOrRefuses(decodeReport, bytes);
      }),
      { numRuns: 1000 },
    );
  });

  it('decodes or refuses any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        decodesOrRefuses(decodeReport, bytes);
        decodesOrRefuses(decodeReply, bytes);
      }),
    );
  });

  it('refuses a claimed count without allocating for it', () => {
    const bytes = Uint8Array.from(encodeReport({ ...fc.sample(report, { numRuns: 1, seed: 1 })[0]!, records: [] }));
    new DataView(bytes.buffer).setUint32(bytes.length - 4, 0xffffffff, true);
    expect(decodesOrRefuses(decodeReport, bytes)).toBe(false);
  });

  it('refuses a report above its bound', () => {
    expect(decodesOrRefuses(decodeReport, new Uint8Array(MAX_REPORT_BYTES + 1))).toBe(false);
  });

  it('encodes no commands as an empty body', () => {
    expect(encodeReply([]).length).toBe(0);
    expect(decodeReply(new Uint8Array(0))).toEqual([]);
  });
});
