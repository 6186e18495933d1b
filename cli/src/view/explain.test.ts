import { type Connection, DEFAULT_POLICY, type ExplainItem, type HeldConnection, mergePolicy } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { connectionLines, drainLines, explainLines, pacingText } from './explain.ts';
import { endsText, estimateText, waitedText } from './when.ts';

const NOW = 1_000_000;
const connection: Connection = {
  epoch: 1,
  id: '7',
  peer: '10.0.0.1:5',
  local: '10.0.0.2:80',
  listener: 'in',
  protocol: 'upgrade',
  route: 'chat',
  openedAt: NOW - 60_000,
};
const held: HeldConnection = {
  connection,
  protected: true,
  reason: 'upgrade',
  holds: true,
  rule: 'sockets',
  endsAt: NOW + 12_000,
  endsLate: NOW + 40_000,
};
const policy = mergePolicy(DEFAULT_POLICY, {
  memory: { budgetMiB: 100 },
  rules: [{ name: 'sockets', match: { protocols: ['upgrade'] }, protectMs: 90_000, cutOrder: 5, nudge: false }],
});
const item: ExplainItem = {
  upgradeId: 'u1',
  phase: 'Draining',
  oldEpoch: 1,
  safe: false,
  why: ['it waits'],
  held: [held],
  wouldCut: [held],
  total: 1,
  protected: 1,
  witnesses: [{ name: 'kernel', open: 1, at: NOW }],
  policy,
  hint: 'wait',
};

describe('an Envoy that the levers table does not know', () => {
  it('says why nobody is told, of the drain and of each connection', () => {
    const none = 'nobody has looked at Envoy 1.41.0';
    expect(pacingText({ told: 0, left: 0, perSecond: 0, none })).toBe(`Told to leave: nobody: ${none}.`);
    expect(pacingText({ told: 3, left: 0, perSecond: 0, none })).toBe(`Told to leave: nobody more, 3 were: ${none}.`);
    const silent: HeldConnection = {
      connection: { ...connection, protocol: 'http1' },
      protected: true,
      reason: 'no-lever',
      holds: false,
      rule: 'default',
    };
    const lines = connectionLines(silent.connection, { item, held: silent, now: NOW }).join('\n');
    expect(lines).toContain('not told to leave: nobody knows what makes a connection of this Envoy version leave');
  });
});

describe('explain', () => {
  it('names the rule of each connection and when it ends', () => {
    const text = explainLines(item, NOW, false).join('\n');
    expect(text).toMatch(/1\/7 +10\.0\.0\.1:5 +upgrade +1m +sockets +yes +upgrade +in about 12s, 40s at most likely/);
    expect(text).toContain(
      'A reset now would cut 1, first to last:\n  1/7  10.0.0.1:5  upgrade  upgrade  rule sockets',
    );
    expect(text).not.toContain('witness');
    expect(explainLines(item, NOW, true).join('\n')).toContain('witness kernel: 1 open');
  });

  it('counts also those that are not named', () => {
    const text = explainLines({ ...item, total: 300, wouldCutTotal: 251 }, NOW, false).join('\n');
    expect(text).toContain('A reset now would cut 251; those that are named, first to last:\n  1/7 ');
    expect(text).toContain('rule sockets\n  and 250 more');
    const none = explainLines({ ...item, wouldCut: [], wouldCutTotal: 0 }, NOW, false).join('\n');
    expect(none).toContain('A reset now would cut nothing.');
  });

  it('tells the whole drain: estimate and what it stands on, telling, cost, limits', () => {
    const more: ExplainItem = {
      ...item,
      estimate: { at: NOW, endsAt: NOW + 12_000, endsLate: NOW + 40_000, observed: 31 },
      pacing: { told: 340, left: 160, perSecond: 100, strain: 'the new epoch is busy', cutoffAgeMs: 61_000 },
      cost: { at: NOW, residentBytes: 2 ** 27, privateBytes: 2 ** 26 },
      deadlineAt: NOW + 300_000,
      limit: 'memory',
    };
    expect(drainLines(more, NOW)).toEqual([
      'The drain ends in about 12s, 40s at most likely (by 31 ends of connections that were seen).',
      'Told to leave: 340, 160 to go at 100 a second; those older than 1m1s have been; slowed: the new epoch is busy.',
      'This epoch holds 64.0MiB that a reset would free; policy lets lingering epochs hold 100MiB together.',
      'Limit by memory: reached.',
      'Limit by time: in 5m.',
    ]);
    expect(drainLines({ ...item, policy: { ...policy, maxDrainMs: 0 } }, NOW)).toEqual(['Limit by time: none.']);
    expect(drainLines({ ...item, deadlineAt: NOW - 1_000 }, NOW)).toEqual(['Limit by time: passed 1s ago.']);
  });

  it('says of one connection what its rule means for it', () => {
    const text = connectionLines(connection, { item, held, now: NOW }).join('\n');
    expect(text).toContain('10.0.0.1:5 is connection 1/7 of the old epoch (upgrade u1, Draining)');
    expect(text).toContain('upgrade on in, route chat, 1m old');
    expect(text).toContain(
      'rule sockets: not told to leave, waited for no longer than 1m30s from the start of the drain',
    );
    expect(text).toContain('cut order 5, at a limit wait');
    expect(text).toContain('waited for: yes (upgrade)');
    const open = connectionLines({ ...connection, protocol: 'http2', toldAt: NOW - 2_000 }, { item, now: NOW }).join(
      '\n',
    );
    expect(open).toContain('no rule (default): told to leave, waited for');
    expect(open).toContain('told to leave 2s ago');
  });

  it.each([
    [{ protected: true }, 'yes'],
    [{ protected: false }, 'no'],
    [{ protected: false, released: 'protection-over' as const }, 'no: protection over'],
    [{ protected: false, released: 'memory' as const }, 'no: memory'],
  ])('%j is waited for: %s', (one, text) => {
    expect(waitedText(one)).toBe(text);
  });

  it('does not pretend to know an end', () => {
    expect(endsText({}, NOW)).toBe('-');
    expect(endsText({ endsAt: NOW - 5 }, NOW)).toBe('in about 0ms');
    expect(estimateText({ at: NOW, observed: 0 }, NOW)).toContain('may never end by itself (no connection was seen');
    expect(pacingText({ told: 0, left: 0, perSecond: 0 })).toBe('Told to leave: all, nobody is left to tell.');
  });

  it('takes the answer of a controller from before rules existed', () => {
    const { policy: _, ...rest } = item;
    const { rule: __, ...old } = held;
    expect(explainLines({ ...rest, held: [old as HeldConnection], wouldCut: [] }, NOW, false).join('\n')).toContain(
      'default',
    );
  });
});
