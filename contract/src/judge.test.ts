import { describe, expect, it } from 'vitest';
import type { Connection } from './connections.ts';
import { type JudgeInput, judge } from './judge.ts';
import { DEFAULT_POLICY } from './policy.ts';

const NOW = 1_000_000;
const connection: Connection = {
  epoch: 0,
  id: '1',
  peer: '10.0.0.1:1',
  local: '10.0.0.2:80',
  listener: 'in',
  protocol: 'unknown',
  openedAt: 0,
};
const input: JudgeInput = { now: NOW, policy: DEFAULT_POLICY, drainStartedAt: NOW - 100, orderAppliedAt: NOW - 50 };

/** The kernel alone sees a WebSocket of an Envoy without the filter as any other silent connection. */
describe('what a connection may hold', () => {
  it.each([
    ['nothing is known of the requests in flight', {}, connection, true],
    ['one is in flight that nobody can place', { unknownInFlight: 1 }, connection, true],
    ['Envoy counts no request', { unknownInFlight: 0 }, connection, false],
    [
      'the filter saw its last request end',
      { unknownInFlight: 1 },
      { ...connection, protocol: 'http1', inFlight: 0, lastActivityAt: NOW - 10 },
      false,
    ],
    [
      'a stream begun before the order may be on an HTTP/2 connection',
      { unknownInFlight: 1 },
      { ...connection, protocol: 'http2', inFlight: 0, lastActivityAt: NOW - 10 },
      true,
    ],
  ] as const)('%s', (_, more, one, holds) => {
    expect(judge(one as Connection, { ...input, ...more }, true).holds).toBe(holds);
  });

  it('its protection ends with its rule, or with a limit that gives it up', () => {
    const policy = { ...DEFAULT_POLICY, maxDrainMs: 60_000 };
    const tcp: Connection = { ...connection, protocol: 'tcp' };
    const rules = [{ name: 'r', match: {}, protectMs: 5_000 }];
    const untilOf = (more: Partial<typeof policy>) =>
      judge(tcp, { ...input, policy: { ...policy, ...more } }, true).until;
    expect(untilOf({})).toBeUndefined();
    expect(untilOf({ atDeadline: 'reset' })).toBe(input.drainStartedAt + 60_000);
    expect(untilOf({ atDeadline: 'reset', rules })).toBe(input.drainStartedAt + 5_000);
    expect(untilOf({ maxDrainMs: 0, atDeadline: 'reset' })).toBeUndefined();
  });

  it.each(['http1', 'http2', 'http3', 'unknown'] as const)(
    'of an Envoy that nobody has looked at a silent %s is waited for, however long, and policy still gives it up',
    (protocol) => {
      const one: Connection = { ...connection, protocol, inFlight: 0, lastActivityAt: NOW - 10 };
      const late = { ...input, now: NOW + 10 * 86_400_000, unknownInFlight: 0, envoy: '1.41.0' };
      expect(judge(one, late, true)).toMatchObject({ protected: true, reason: 'no-lever', holds: false });
      expect(judge({ ...one, toldAt: NOW }, { ...late, paced: true }, true).reason).toBe('no-lever');
      expect(judge({ ...one, inFlight: 1 }, late, true).reason).not.toBe('no-lever');
      const policy = { ...DEFAULT_POLICY, maxDrainMs: 60_000, atDeadline: 'reset' } as const;
      expect(judge(one, { ...late, policy }, true)).toMatchObject({ protected: false, released: 'deadline' });
    },
  );

  it('nobody waits for a turn that does not come', () => {
    const policy = { ...DEFAULT_POLICY, http2: { goaway: false } };
    for (const protocol of ['http1', 'http2'] as const) {
      const one = { ...connection, protocol, inFlight: 0 };
      expect(judge(one, { ...input, policy, paced: true, unknownInFlight: 0 }, true).reason).toBe('not-told');
    }
  });

  it('an answer that its client has not taken yet is a request, however long Envoy has been done with it', () => {
    const policy = { ...DEFAULT_POLICY, http1: { silentIdleGraceMs: 0 } };
    for (const protocol of ['http1', 'unknown'] as const) {
      const idle: Connection = { ...connection, protocol, inFlight: 0, lastActivityAt: NOW - 90_000 };
      const given = { ...input, policy, unknownInFlight: 0 };
      expect(judge(idle, given, true)).toMatchObject({ protected: false, reason: 'silent-idle-grace', holds: false });
      const answering = judge({ ...idle, answering: true }, given, true);
      expect(answering).toMatchObject({ protected: true, reason: 'request-in-flight', holds: true });
    }
  });

  it('who made the row is not heard now', () => {
    expect(judge(connection, { ...input, unknownInFlight: 0 }, false).holds).toBe(true);
  });
});
