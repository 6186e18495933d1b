import {
  type AgentMessage,
  type Connection,
  DEFAULT_POLICY,
  type HeldConnection,
  type Verdict,
} from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import type { Epoch } from '../epochs/epoch.ts';
import type { KeeperContext } from './context.ts';
import { isResetting, resetEpoch } from './resets.ts';

const session = (id: number, more: Partial<HeldConnection> = {}): HeldConnection => ({
  connection: { epoch: 1, id: String(id), peer: `10.0.0.1:${id}`, protocol: 'tcp' } as Connection,
  protected: false,
  reason: 'tcp',
  holds: true,
  rule: 'default',
  released: 'deadline',
  ...more,
});

/** An old epoch with sessions that policy gives up; `after`: what holds something once they were cut. */
function epoch(count: number, after: () => readonly HeldConnection[]) {
  const open = new Map(Array.from({ length: count }, (_, n) => [String(n), session(n)]));
  /** `foretold`: how many were open each time it was said when each would have ended. */
  const did = { told: 0, ended: false, foretold: [] as number[] };
  const held = () => (open.size > 0 ? [...open.values()] : [...after()]);
  const drain = {
    policy: { ...DEFAULT_POLICY, pacing: { ...DEFAULT_POLICY.pacing, perSecond: 100 } },
    deeds: { cut: new Map(), idleClosed: new Set() },
    judge: async () => ({ safe: !held().some((one) => one.protected), summary: 'as told' }) as Verdict,
    wouldBeCut: held,
    foretell: () => {
      did.foretold.push(open.size);
    },
    tellAgain: () => {
      did.told += 1;
    },
    stop: () => {},
  };
  const old = {
    number: 1,
    meta: { state: 'draining', oldConnections: count + 1 },
    drain,
    gone: new Promise(() => {}),
    sources: () => ({
      cut: (ids: string[]) => {
        for (const id of ids) open.delete(id);
      },
    }),
    end: async () => {
      did.ended = true;
    },
    update: (change: object) => Object.assign(old.meta, change),
  } as unknown as Epoch;
  const sent: AgentMessage[] = [];
  const context = {
    now: Date.now,
    log: () => {},
    send: (message: AgentMessage) => sent.push(message),
    registry: { folders: () => [], get: () => old, remove: () => {}, statuses: () => [] },
    config: {},
    standing: { changed: () => {} },
  } as unknown as KeeperContext;
  return { old, context, did, open, sent };
}

const wish = { upgradeId: 'u', epoch: 1 };

it('a request that comes while others are cut is named, where policy gives that up too', async () => {
  const late = session(99, { reason: 'request-in-flight' });
  const { context, did } = epoch(30, () => [late]);
  const reset = resetEpoch(context, wish, () => {});
  const { cut, drained } = await reset;
  expect(did.ended).toBe(true);
  expect(cut.map((one) => one.id)).toContain('99');
  expect([cut.length, drained]).toEqual([31, 0]);
});

it('when each would have ended is said before the first of them is cut', async () => {
  const { context, did } = epoch(30, () => []);
  await resetEpoch(context, wish, () => {});
  expect(did.foretold[0]).toBe(30);
});

it('one that is protected by then is waited for, and what has been cut stays named', async () => {
  let late = [session(99, { reason: 'request-in-flight', protected: true })];
  const { old, context, did } = epoch(30, () => late);
  const refused = expect(resetEpoch(context, wish, () => {})).rejects.toMatchObject({ code: 'RESET_PROTECTED' });
  await refused;
  expect([did.ended, did.told, isResetting(old)]).toEqual([false, 1, false]);
  late = [];
  const { cut, drained } = await resetEpoch(context, wish, () => {});
  expect(cut).toHaveLength(30);
  expect(drained).toBe(1);
});

describe('an override', () => {
  const override = { by: 'me', reason: 'now' };
  const given = { ...override, at: expect.any(Number) };

  it('cuts it, and is named with it: in the run folder, and to the controller', async () => {
    const { context, old, sent } = epoch(30, () => [session(99, { protected: true })]);
    const report = await resetEpoch(context, { ...wish, override }, () => {});
    expect(report.cut).toHaveLength(31);
    expect(report.override).toEqual(given);
    expect(old.meta.resetReport).toEqual(report);
    expect(sent[0]).toMatchObject({ type: 'reset', override: given });
  });

  it('is kept from before the first cut on, for the successor of an agent that dies in the middle', async () => {
    const first = epoch(30, () => []);
    const meta = { ...first.old.meta };
    let atCut: unknown;
    first.old.sources = () => ({ cut: () => (atCut ??= first.old.meta.override) }) as never;
    void resetEpoch(first.context, { ...wish, override }, () => {});
    await expect.poll(() => atCut).toEqual(given);
    const { context } = epoch(0, () => []);
    Object.assign(context.registry.get(1)?.meta as object, meta, { override: atCut });
    expect((await resetEpoch(context, wish, () => {})).override).toEqual(given);
  });

  it('of the agent itself is nobody’s: its reason is told instead', async () => {
    const { context, sent } = epoch(1, () => [session(99, { protected: true })]);
    const report = await resetEpoch(context, { ...wish, override, why: 'the bound is over' }, () => {});
    expect(report.override).toBeUndefined();
    expect(sent[0]).toMatchObject({ type: 'reset', why: 'the bound is over' });
  });
});
