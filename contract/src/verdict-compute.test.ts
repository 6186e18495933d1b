import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Connection, Protocol } from './connections.ts';
import { leverOf } from './levers.ts';
import { DEFAULT_POLICY } from './policy.ts';
import { MAX_HELD, type Witness } from './verdict.ts';
import { closableIdle, computeVerdict, nextChangeAt, type VerdictInput } from './verdict-compute.ts';

const START = 1_000_000;
const GRACE = DEFAULT_POLICY.http1.silentIdleGraceMs;

function connection(protocol: Protocol, more: Partial<Connection> = {}): Connection {
  return { epoch: 3, id: '1', peer: 'p:1', local: 'l:1', listener: 'a', protocol, openedAt: START - 5_000, ...more };
}

/** All witnesses heard and agreeing with the table, the order applied, no request in Envoy that is not known. */
function input(connections: readonly Connection[], more: Partial<VerdictInput> = {}): VerdictInput {
  const now = more.now ?? START + 1_000;
  const witness = (name: Witness['name']): Witness => ({ name, open: connections.length, at: now });
  return {
    now,
    policy: DEFAULT_POLICY,
    drainStartedAt: START,
    orderAppliedAt: START + 100,
    connections,
    witnesses: [witness('filter'), witness('admin'), witness('kernel')],
    unknownInFlight: 0,
    staleAfterMs: 3_000,
    ...more,
  };
}

const only = (verdict: ReturnType<typeof computeVerdict>) => {
  expect(verdict.held).toHaveLength(1);
  return verdict.held[0]!;
};

describe('computeVerdict', () => {
  it('is safe when nothing is left and the witnesses agree', () => {
    const verdict = computeVerdict(input([]));
    expect(verdict).toMatchObject({ safe: true, total: 0, protected: 0, held: [], pastDeadline: false });
    expect(verdict.summary).toBe('safe: no connection is left');
  });

  it.each([
    ['http2', { inFlight: 2 }, 'streams-finishing'],
    ['http2', {}, 'streams-finishing'],
    ['http2', { inFlight: 0 }, 'told-to-leave'],
    ['http3', { inFlight: 1 }, 'streams-finishing'],
    ['http1', { inFlight: 1 }, 'request-in-flight'],
    ['unknown', { inFlight: 1 }, 'request-in-flight'],
    ['upgrade', {}, 'upgrade'],
    ['tcp', {}, 'tcp'],
  ] as const)('waits for %s %j: %s, also long after the grace', (protocol, more, reason) => {
    const verdict = computeVerdict(input([connection(protocol, more)], { now: START + 10 * GRACE }));
    expect(verdict.safe).toBe(false);
    expect(only(verdict)).toMatchObject({ protected: true, reason });
  });

  it('is not safe while the old epoch may get one more connection, unless policy resets whatever is left', () => {
    const verdict = computeVerdict(input([], { accepts: true }));
    expect(verdict).toMatchObject({ safe: false, summary: 'wait: it accepts connections still' });
    const policy = { ...DEFAULT_POLICY, maxDrainMs: 500, atDeadline: 'reset' } as const;
    expect(computeVerdict(input([], { accepts: true, policy })).safe).toBe(true);
  });

  it('protects a silent idle HTTP/1 connection for its grace and says until when', () => {
    const silent = [connection('unknown')];
    expect(only(computeVerdict(input(silent)))).toMatchObject({
      protected: true,
      reason: 'silent-idle-grace',
      until: START + 100 + GRACE,
    });
    const after = input(silent, { now: START + 100 + GRACE });
    expect(computeVerdict(after)).toMatchObject({ safe: true, total: 1, protected: 0 });
    expect(closableIdle(after)).toEqual(['1']);
  });

  it('starts the grace again with every sign of life', () => {
    const seen = [connection('http1', { inFlight: 0, lastActivityAt: START + 30_000 })];
    expect(computeVerdict(input(seen, { now: START + 100 + GRACE })).safe).toBe(false);
    expect(computeVerdict(input(seen, { now: START + 30_000 + GRACE })).safe).toBe(true);
  });

  it('waits for a silent one as long as a request begun before the order may be on it', () => {
    const later = { now: START + 2 * GRACE };
    for (const unknownInFlight of [undefined, 1]) {
      const silent = input([connection('unknown')], { ...later, unknownInFlight });
      expect(only(computeVerdict(silent))).toMatchObject({ protected: true, reason: 'may-hold-a-request' });
      expect(closableIdle(silent)).toEqual([]);
      // HTTP/1 has one request at a time: a whole one was seen on this connection, so there is no older one.
      const proven = input([connection('http1', { inFlight: 0, lastActivityAt: START + 200 })], {
        ...later,
        unknownInFlight,
      });
      expect(computeVerdict(proven).safe).toBe(true);
    }
  });

  it('runs no grace before the order is applied, or after it was taken back', () => {
    const late = { now: START + 100 * GRACE };
    expect(computeVerdict(input([connection('unknown')], { ...late, orderAppliedAt: undefined })).safe).toBe(false);
    const order = {
      v: 1,
      upgradeId: 'u',
      epoch: 3,
      version: 2,
      action: 'stop',
      policy: DEFAULT_POLICY,
      cutoffAgeMs: 0,
      issuedAt: START,
    } as const;
    expect(closableIdle(input([connection('unknown')], { ...late, order }))).toEqual([]);
  });

  it('does not wait for sessions that policy gives up, and counts them', () => {
    const policy = { ...DEFAULT_POLICY, upgrades: { protect: false }, tcp: { protect: false } };
    const sessions = [connection('upgrade'), connection('tcp', { id: '2' })];
    expect(computeVerdict(input(sessions, { policy }))).toMatchObject({ safe: true, total: 2, protected: 0 });
    expect(closableIdle(input(sessions, { policy }))).toEqual([]);
  });

  it('protects connections that only the kernel sees', () => {
    const verdict = computeVerdict(
      input([], {
        witnesses: [
          { name: 'filter', open: 0, at: START + 1_000 },
          { name: 'kernel', open: 2, at: START + 1_000 },
        ],
      }),
    );
    expect(verdict).toMatchObject({ safe: false, total: 2, protected: 2 });
    expect(verdict.held.map((one) => one.reason)).toEqual(['unseen', 'unseen']);
    expect(verdict.disagreement).toMatch(/filter counts 0, kernel counts 2/);
  });

  it('stands on the kernel alone when the filter is not heard, and says so', () => {
    const now = START + 10_000;
    const witnesses = (open: number): Witness[] => [
      { name: 'filter', open: 1, at: now - 3_001 },
      { name: 'kernel', open, at: now },
    ];
    const gone = computeVerdict(input([connection('http1')], { now, witnesses: witnesses(0) }));
    expect(gone).toMatchObject({ safe: true, total: 0 });
    expect(gone.witnesses[0]).toMatchObject({ name: 'filter', why: 'not heard for 3001 ms' });
    expect(gone.witnesses[0]).not.toHaveProperty('open');
    const left = input([connection('unknown')], { now: now + GRACE * 2, witnesses: witnesses(1) });
    const fresh = { ...left, witnesses: left.witnesses.map((w) => (w.name === 'kernel' ? { ...w, at: left.now } : w)) };
    expect(only(computeVerdict(fresh))).toMatchObject({ protected: true, reason: 'may-hold-a-request' });
    expect(closableIdle(fresh)).toEqual([]);
  });

  it('judges the kernel’s own list where Envoy runs no filter', () => {
    const now = START + 2 * GRACE;
    const witnesses: Witness[] = [
      { name: 'filter', at: now, why: 'this Envoy is built without V8' },
      { name: 'admin', open: 2, at: now },
      { name: 'kernel', open: 2, at: now },
    ];
    const listed = [connection('unknown', { id: '11' }), connection('tcp', { id: '12' })];
    const given = input(listed, { now, witnesses, listedBy: 'kernel' });
    expect(computeVerdict(given)).toMatchObject({ safe: false, total: 2, protected: 1 });
    expect(closableIdle(given)).toEqual(['11']);
    // Envoy counts a request (or an upgrade, which counts as one): any of the unknown ones may hold it.
    expect(closableIdle({ ...given, unknownInFlight: 1 })).toEqual([]);
  });

  it('never trusts the filter alone', () => {
    const verdict = computeVerdict(input([], { witnesses: [{ name: 'filter', open: 0, at: START + 1_000 }] }));
    expect(verdict.safe).toBe(false);
    expect(verdict.summary).toMatch(/neither kernel nor admin/);
  });

  it('waits while kernel and admin differ', () => {
    const at = START + 1_000;
    const verdict = computeVerdict(
      input([connection('tcp')], {
        policy: { ...DEFAULT_POLICY, tcp: { protect: false } },
        witnesses: [
          { name: 'filter', open: 1, at },
          { name: 'kernel', open: 0, at },
        ],
      }),
    );
    expect(verdict).toMatchObject({ safe: false, disagreement: 'filter counts 1, kernel counts 0' });
  });

  it('says when the drain is past its deadline', () => {
    const now = START + DEFAULT_POLICY.maxDrainMs;
    expect(computeVerdict(input([connection('tcp')], { now })).pastDeadline).toBe(true);
    expect(computeVerdict(input([connection('tcp')], { now: now - 1 })).pastDeadline).toBe(false);
  });

  it('bounds what it names and counts all, protected ones first', () => {
    const many = Array.from({ length: 500 }, (_, n) => connection(n % 2 === 0 ? 'unknown' : 'tcp', { id: String(n) }));
    const verdict = computeVerdict(input(many, { now: START + 2 * GRACE }));
    expect(verdict).toMatchObject({ total: 500, protected: 250 });
    expect(verdict.held).toHaveLength(MAX_HELD);
    expect(verdict.held.every((one) => one.protected)).toBe(true);
  });
});

describe('nextChangeAt', () => {
  it('is the end of the first grace, and the deadline at last', () => {
    expect(nextChangeAt(input([connection('unknown')], { witnesses: [] }))).toBe(START + 100 + GRACE);
    expect(nextChangeAt(input([connection('tcp')], { witnesses: [] }))).toBe(START + DEFAULT_POLICY.maxDrainMs);
    expect(nextChangeAt(input([], { now: START + DEFAULT_POLICY.maxDrainMs, witnesses: [] }))).toBeUndefined();
  });
});

const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const instant = fc.integer({ min: START - 10_000, max: START + 200_000 });

const anyConnection: fc.Arbitrary<Connection> = fc
  .record({
    protocol: fc.constantFrom<Protocol>('unknown', 'http1', 'http2', 'http3', 'upgrade', 'tcp'),
    openedAt: instant,
    inFlight: optional(fc.integer({ min: 0, max: 3 })),
    lastActivityAt: optional(instant),
  })
  .map(({ inFlight, lastActivityAt, ...rest }) =>
    connection(rest.protocol, {
      openedAt: rest.openedAt,
      ...(inFlight === undefined ? {} : { inFlight }),
      ...(lastActivityAt === undefined ? {} : { lastActivityAt }),
    }),
  );

const anyInput: fc.Arbitrary<VerdictInput> = fc
  .record({
    now: instant,
    grace: fc.integer({ min: 0, max: 100_000 }),
    protect: fc.boolean(),
    orderAppliedAt: optional(instant),
    connections: fc.array(anyConnection, { maxLength: 6 }),
    unknownInFlight: optional(fc.integer({ min: 0, max: 2 })),
    agree: fc.boolean(),
    listedBy: optional(fc.constant('kernel' as const)),
    witnesses: fc.uniqueArray(
      fc.record({
        name: fc.constantFrom<Witness['name']>('filter', 'admin', 'kernel'),
        open: fc.integer({ min: 0, max: 7 }),
        age: fc.integer({ min: 0, max: 6_000 }),
      }),
      { selector: (witness) => witness.name, maxLength: 3 },
    ),
  })
  .map((g) => ({
    now: g.now,
    policy: {
      ...DEFAULT_POLICY,
      http1: { silentIdleGraceMs: g.grace },
      upgrades: { protect: g.protect },
      tcp: { protect: g.protect },
    },
    drainStartedAt: START,
    orderAppliedAt: g.orderAppliedAt,
    connections: g.connections.map((one, n) => ({ ...one, id: String(n) })),
    witnesses: g.witnesses.map(({ name, open, age }) => ({
      name,
      open: g.agree ? g.connections.length : open,
      at: g.now - age,
    })),
    listedBy: g.listedBy,
    unknownInFlight: g.unknownInFlight,
    staleAfterMs: 3_000,
  }));

describe('properties of the verdict', () => {
  it('is never safe with a protected connection, without a socket count, or while the heard differ', () => {
    fc.assert(
      fc.property(anyInput, (given) => {
        const verdict = computeVerdict(given);
        const heard = verdict.witnesses.filter((witness) => witness.open !== undefined);
        if (!verdict.safe) return;
        expect(verdict.protected).toBe(0);
        expect(verdict.held.some((one) => one.protected)).toBe(false);
        expect(heard.some((witness) => witness.name !== 'filter')).toBe(true);
        // Every socket that anyone counts is one that the table names as not protected.
        for (const witness of heard) expect(witness.open).toBe(verdict.total);
      }),
      { numRuns: 2_000 },
    );
  });

  it('never gets safer by one more connection, request or unknown socket', () => {
    fc.assert(
      fc.property(anyInput, anyConnection, (given, extra) => {
        const before = computeVerdict(given);
        const more = (by: number) => given.witnesses.map((w) => ({ ...w, open: (w.open ?? 0) + by }));
        const withConnection = {
          ...given,
          connections: [...given.connections, { ...extra, id: 'x' }],
          witnesses: more(1),
        };
        const withSocket = { ...given, witnesses: more(1) };
        const withRequests = {
          ...given,
          connections: given.connections.map((one) => ({ ...one, inFlight: (one.inFlight ?? 0) + 1 })),
          unknownInFlight: (given.unknownInFlight ?? 0) + 1,
        };
        for (const worse of [withConnection, withRequests]) {
          expect(computeVerdict(worse).protected).toBeGreaterThanOrEqual(before.protected);
          if (computeVerdict(worse).safe) expect(before.safe).toBe(true);
        }
        if (before.safe) expect(computeVerdict(withSocket).safe).toBe(false);
      }),
      { numRuns: 2_000 },
    );
  });

  it('of an Envoy that nobody has looked at closes nothing, and gives up only what policy does', () => {
    fc.assert(
      fc.property(anyInput, (given) => {
        const unknown = { ...given, envoy: '1.41.0' };
        expect(closableIdle(unknown)).toEqual([]);
        for (const { protected: waits, released } of computeVerdict(unknown).held) {
          expect(waits || released !== undefined).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('goes by the levers table: of an Envoy in it nothing else follows than the table says', () => {
    fc.assert(
      fc.property(anyInput, fc.constantFrom('1.36.4', '1.38.9', '1.40.0'), (given, envoy) => {
        const known = { ...given, envoy };
        expect(computeVerdict(known).held.some(({ reason }) => reason === 'no-lever')).toBe(false);
        for (const id of closableIdle(known)) {
          const one = given.connections.find((each) => each.id === id) as Connection;
          expect(leverOf(envoy, one).lever).toBe('idle-close');
        }
      }),
      { numRuns: 500 },
    );
  });

  it('closes nothing that is protected, busy, or no silent HTTP/1 connection', () => {
    fc.assert(
      fc.property(anyInput, (given) => {
        const closable = new Set(closableIdle(given));
        const protectedIds = computeVerdict(given)
          .held.filter((one) => one.protected)
          .map((one) => one.connection.id);
        for (const id of protectedIds) expect(closable.has(id)).toBe(false);
        for (const one of given.connections.filter((c) => closable.has(c.id))) {
          expect(['http1', 'unknown']).toContain(one.protocol);
          expect(one.inFlight ?? 0).toBe(0);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('does not change before nextChangeAt while nothing happens', () => {
    fc.assert(
      fc.property(anyInput, fc.nat(100), (given, percent) => {
        const next = nextChangeAt(given);
        const end = next === undefined ? given.now + 1_000_000 : next - 1;
        const now = given.now + Math.floor(((end - given.now) * percent) / 100);
        const core = (v: ReturnType<typeof computeVerdict>) => [v.safe, v.protected, v.total, v.pastDeadline];
        expect(core(computeVerdict({ ...given, now }))).toEqual(core(computeVerdict(given)));
        expect(closableIdle({ ...given, now })).toEqual(closableIdle(given));
      }),
      { numRuns: 1_000 },
    );
  });
});
