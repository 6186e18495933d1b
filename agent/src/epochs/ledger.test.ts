import {
  type Connection,
  DEFAULT_POLICY,
  type EndedConnection,
  type HeldConnection,
  MAX_ENDED,
} from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { cutBefore, Ledger, lifeOf } from './ledger.ts';

const connection = (id: string, more: Partial<Connection> = {}): Connection => ({
  epoch: 1,
  id,
  peer: 'p:1',
  local: 'l:1',
  listener: 'in',
  protocol: 'http2',
  openedAt: 100,
  ...more,
});
const held = (id: string, more: Partial<Connection> = {}, rest: Partial<HeldConnection> = {}): HeldConnection => ({
  connection: connection(id, more),
  protected: true,
  reason: 'told-to-leave',
  holds: false,
  rule: 'default',
  ...rest,
});

describe('Ledger', () => {
  const begin = () => {
    const ends: EndedConnection[] = [];
    return { ends, ledger: new Ledger((items) => ends.push(...items)) };
  };
  const nothing = { idleClosed: new Set<string>(), cut: new Map<string, HeldConnection>() };

  it('tells each end once, with how, lever and rule', () => {
    const { ends, ledger } = begin();
    const idle = held('2', { protocol: 'http1' }, { reason: 'silent-idle-grace', protected: false });
    const session = held('3', { protocol: 'upgrade' }, { reason: 'upgrade', rule: 'sockets' });
    ledger.look([held('1'), idle, session, held('4', { marked: true })], nothing, 1_000);
    ledger.look([session], { ...nothing, idleClosed: new Set(['2']) }, 2_000);
    ledger.look([session], nothing, 2_500);
    ledger.look([], nothing, 3_000);
    expect(ends.map(({ connection: c, how, lever, rule, at }) => [c.id, how, lever, rule, at])).toEqual([
      ['1', 'left', 'age-pressure', 'default', 2_000],
      ['2', 'closed-idle', 'idle-close', 'default', 2_000],
      ['4', 'left', 'mark', 'default', 2_000],
      ['3', 'left', 'wait', 'sockets', 3_000],
    ]);
  });

  it('names what a reset cut, the unseen too, and whose word it was', () => {
    const { ends, ledger } = begin();
    const session = held('3', { protocol: 'tcp' }, { reason: 'tcp', holds: true, released: 'deadline' });
    const unseen = held('unseen-0', {}, { reason: 'unseen', holds: true });
    ledger.look([session, held('5', { protocol: 'http1' })], nothing, 1_000);
    ledger.close(
      {
        ...nothing,
        cut: new Map([
          ['3', session],
          ['unseen-0', unseen],
        ]),
      },
      2_000,
      false,
    );
    expect(ends.map(({ connection: c, how, lever, released }) => [c.id, how, lever, released])).toEqual([
      ['3', 'cut', 'cut', 'deadline'],
      ['5', 'closed-idle', 'idle-close', undefined],
      ['unseen-0', 'cut', 'cut', undefined],
    ]);
  });

  it('one that was told after the last look at it has not waited', () => {
    const { ends, ledger } = begin();
    ledger.look(
      [held('1', {}, { reason: 'waits-its-turn' }), held('2', {}, { reason: 'waits-its-turn' })],
      nothing,
      1_000,
    );
    const told = (one: Connection) => (one.id === '1' ? { ...one, toldAt: 1_100, marked: true } : one);
    ledger.look([], { ...nothing, told }, 1_200);
    expect(ends.map(({ reason, lever, connection: c }) => [reason, lever, c.toldAt])).toEqual([
      ['told-to-leave', 'mark', 1_100],
      ['waits-its-turn', 'wait', undefined],
    ]);
  });

  it('one that a request saved from being closed has left by itself', () => {
    const { ends, ledger } = begin();
    const idleClosed = new Set(['1']);
    ledger.look([held('1', { protocol: 'http1' }, { reason: 'silent-idle-grace', protected: false })], nothing, 1_000);
    ledger.look([held('1', { protocol: 'http1' }, { reason: 'request-in-flight' })], { ...nothing, idleClosed }, 1_100);
    ledger.look([], { ...nothing, idleClosed }, 1_200);
    expect(ends).toMatchObject([{ how: 'left' }]);
  });

  it('names each that was cut once: in its turn, or although it was in no list', () => {
    const { ends, ledger } = begin();
    const one = held('1', { protocol: 'tcp' }, { reason: 'tcp', holds: true });
    const other = held('2', { protocol: 'tcp' }, { reason: 'tcp', holds: true });
    const deeds = {
      ...nothing,
      cut: new Map([
        ['1', one],
        ['2', other],
      ]),
    };
    ledger.look([one], nothing, 1_000);
    ledger.look([], deeds, 1_100);
    ledger.close(deeds, 1_200, false);
    expect(ends.map(({ connection: c, how }) => [c.id, how])).toEqual([
      ['1', 'cut'],
      ['2', 'cut'],
    ]);
  });

  it('has beside each end what was said of it first, and how much later it was', () => {
    const { ends, ledger } = begin();
    const expected = (id: string) => (id === '3' ? undefined : { at: 900, ...(id === '1' && { endsAt: 1_500 }) });
    ledger.look([held('1'), held('2'), held('3')], nothing, 1_000);
    ledger.look([], { ...nothing, expected }, 1_100);
    expect(ends.map(({ estimate }) => estimate)).toEqual([
      { at: 900, endsAt: 1_500, lateMs: -400 },
      { at: 900 },
      undefined,
    ]);
  });

  it('what an earlier agent cut is named by the reset, and told once', () => {
    const { ends, ledger: first } = begin();
    const one = held('1', { protocol: 'tcp' }, { reason: 'tcp', holds: true });
    const deeds = { ...nothing, cut: new Map([['1', one]]) };
    first.look([one], nothing, 1_000);
    first.look([], deeds, 1_100);
    const again: EndedConnection[] = [];
    new Ledger((items) => again.push(...items), { items: ends }).close(deeds, 2_000, false);
    expect([ends.length, again.length]).toEqual([1, 0]);
    expect(cutBefore(ends)).toEqual([['1', { ...one, protected: false }]]);
  });

  it('counts those that ended while nobody looked, after a restart too', () => {
    const calls: number[] = [];
    const kept: EndedConnection[] = [];
    const told = (items: readonly EndedConnection[]) => {
      calls.push(items.length);
      kept.push(...items);
    };
    const first: Ledger = new Ledger(told, { open: 5 });
    first.look([held('1'), held('2'), held('3')], nothing, 1_000);
    expect([first.dropped, calls]).toEqual([2, [0]]);
    first.look([held('1'), held('2')], nothing, 1_100);
    // Killed here: one is kept, and one more ends before the next agent looks.
    const second: Ledger = new Ledger(() => {}, { open: 5, items: kept });
    second.look([held('1')], nothing, 2_000);
    second.look([], nothing, 3_000);
    expect(second.dropped).toBe(3);
    const unseen: Ledger = new Ledger(() => {}, { open: 5 });
    unseen.close(nothing, 1_000, true);
    expect(unseen.dropped).toBe(5);
  });

  it('does not take a list that is still to come for one that was missed', () => {
    const ledger: Ledger = new Ledger(() => {}, { open: 3 });
    ledger.look([], nothing, 1_000, false);
    ledger.look([held('1'), held('2')], nothing, 1_100, false);
    ledger.look([held('2')], nothing, 1_200, true);
    expect(ledger.dropped).toBe(1);
  });

  it('says how many more there were than it keeps', () => {
    const ends: EndedConnection[] = [];
    const said: number[] = [];
    const ledger: Ledger = new Ledger((items) => {
      ends.push(...items);
      said.push(ledger.dropped);
    });
    const many = Array.from({ length: MAX_ENDED + 2 }, (_, n) => held(String(n)));
    ledger.look(many, nothing, 1_000);
    ledger.look(many.slice(-1), nothing, 2_000);
    ledger.look([], nothing, 3_000);
    expect([ends.length, said]).toEqual([MAX_ENDED, [1, 2]]);
  });

  it('counts what a crash ended as crashed', () => {
    const { ends, ledger } = begin();
    ledger.look([held('1')], nothing, 1_000);
    ledger.close(nothing, 2_000, true);
    expect(ends).toMatchObject([{ how: 'crashed' }]);
  });
});

it('a session lasts from its opening, the others from when they were told', () => {
  expect(lifeOf(connection('1', { protocol: 'tcp' }), DEFAULT_POLICY, 1_100)).toMatchObject({
    forMs: 1_000,
    waits: false,
  });
  expect(lifeOf(connection('1', { toldAt: 600 }), DEFAULT_POLICY, 1_100)).toMatchObject({ forMs: 500, waits: false });
  expect(lifeOf(connection('1'), DEFAULT_POLICY, 1_100)).toMatchObject({ forMs: 0, waits: true });
});
