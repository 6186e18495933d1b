import { DEFAULT_STRATEGY, type RolloutAnalysis, type RolloutSpec, SluiceError } from '@sluice/contract';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { Log } from '../log.ts';
import { MemoryStore } from '../store/memory.ts';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { Rollouts, type RolloutsOptions } from './driver.ts';
import { SimulatedFleet } from './simulation.ts';
import type { RolloutState } from './state.ts';

const log = { info() {}, warn() {}, error() {} } as unknown as Log;
const spec = (analysis: Partial<RolloutAnalysis> = {}): RolloutSpec => rolloutSpec({ maxUnavailable: 2 }, analysis);

const open: Rollouts[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

function rig(count: number, more: Partial<RolloutsOptions> = {}) {
  const store = new MemoryStore();
  const fleet = new SimulatedFleet();
  for (let n = 0; n < count; n++) fleet.add(`p${n}`);
  let deaf = false;
  let reached: ((state: RolloutState) => void) | undefined;
  const controller = (): Rollouts => {
    const rollouts = new Rollouts({
      store,
      log,
      fleet: {
        observe: async () => fleet.observe(),
        carryOut: async (action) => {
          if (deaf) throw new Error('the controller is dead');
          fleet.carryOut(action);
        },
      },
      onRollout: (state) => reached?.(state),
      ...more,
    });
    open.push(rollouts);
    return rollouts;
  };
  /** The next state that fits: no waiting by the clock. */
  const when = (fits: (state: RolloutState) => boolean): Promise<RolloutState> =>
    new Promise((resolve) => {
      reached = (state) => {
        if (fits(state)) resolve(state);
      };
    });
  const deafen = (on: boolean): void => {
    deaf = on;
  };
  return { store, fleet, controller, when, deafen };
}

describe('Rollouts', () => {
  it('orders again what was stored and not ordered, under the same id, and never twice', async () => {
    const { store, fleet, controller, deafen } = rig(3);
    deafen(true);
    const first = controller();
    const { id, members } = await first.create(spec());
    const ordered = members[0]?.upgradeId;
    expect(fleet.taken).toEqual([]);
    await first.close();
    deafen(false);
    const second = controller();
    await second.start();
    await second.event(id, { type: 'tick' });
    expect(fleet.taken).toEqual([{ type: 'start', member: 'p0', id: ordered }]);
    await second.close();
    const third = controller();
    await third.start();
    await third.event(id, { type: 'tick' });
    expect(fleet.taken).toHaveLength(1);
    expect((await store.rolloutRecord(id)).map((one) => one.seq)).toEqual([0, 1]);
  });

  it('runs to its end by what the fleet tells, and can be rolled back then', async () => {
    const { fleet, controller, when } = rig(3);
    const rollouts = controller();
    const { id } = await rollouts.create(spec());
    for (let n = 0; n < 5; n++) {
      for (const [name] of fleet.members) fleet.advance(name);
      await rollouts.event(id, { type: 'tick' });
    }
    expect((await rollouts.find(id)).phase).toBe('Done');
    expect(rollouts.active()).toEqual([]);
    const back = await rollouts.event(id, { type: 'rollback', by: 'jo' });
    expect(back.phase).toBe('RollingBack');
    for (const [name] of fleet.members) fleet.advance(name);
    const third = when((state) => state.members.some((one) => one.state === 'flipping' && one.name === 'p0'));
    rollouts.changed();
    await third;
    for (const [name] of fleet.members) fleet.advance(name);
    const over = when((state) => state.phase === 'RolledBack');
    rollouts.changed();
    expect((await over).members.every((one) => one.state === 'rolledBack')).toBe(true);
  });

  it('gives a proxy to one rollout at a time, also when two are asked for at once', async () => {
    const { controller } = rig(2);
    const rollouts = controller();
    const [one, two] = await Promise.allSettled([rollouts.create(spec()), rollouts.create(spec())]);
    expect(one.status).toBe('fulfilled');
    expect(two).toMatchObject({ status: 'rejected', reason: { code: 'ROLLOUT_CONFLICT' } });
    const { id } = (one as PromiseFulfilledResult<RolloutState>).value;
    const aborting = await rollouts.event(id, { type: 'abort', by: 'jo' });
    expect(aborting.phase).toBe('Aborting');
    expect((await rollouts.event(id, { type: 'tick' })).phase).toBe('Aborted');
    await expect(rollouts.create(spec())).resolves.toMatchObject({ phase: 'Progressing' });
  });

  it('refuses limits that nobody can judge, asks a source of metrics where there is one', async () => {
    await expect(
      rig(1)
        .controller()
        .create(spec({ maxP99Ms: 50 })),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const { controller, when } = rig(2, {
      metrics: { everyMs: 60_000, measure: async (_, at) => ({ at, p99Ms: 80 }) },
    });
    const paused = when((state) => state.phase === 'Paused');
    await controller().create(spec({ maxP99Ms: 50 }));
    expect((await paused).pause?.reason).toContain('80 ms');
  });

  it('a fleet of thousands that speaks all the time is stored once a second', async () => {
    const { store, fleet, controller } = rig(2_000);
    const rollouts = controller();
    let written = 0;
    const update = store.updateRollout.bind(store);
    store.updateRollout = (...args) => {
      written++;
      return update(...args);
    };
    vi.useFakeTimers();
    try {
      const wide = { ...spec(), strategy: { ...DEFAULT_STRATEGY, canary: 0, maxUnavailable: '10%' } };
      const { id } = await rollouts.create(wide);
      const names = [...fleet.members.keys()];
      for (let ms = 0; ms < 30_000; ms += 10) {
        fleet.advance(names[(ms / 10) % names.length] as string);
        rollouts.changed();
        await vi.advanceTimersByTimeAsync(10);
      }
      expect((await rollouts.find(id)).members.filter((one) => one.state !== 'waiting').length).toBeGreaterThan(1_000);
      expect(written).toBeLessThanOrEqual(31);
      expect(written).toBeGreaterThan(20);
    } finally {
      vi.useRealTimers();
    }
  });

  it('goes on from what is stored when the answer to its write was lost, and keeps a crash that could not be stored', async () => {
    const { store, controller, fleet } = rig(3);
    const rollouts = controller();
    const { id } = await rollouts.create(spec());
    const update = store.updateRollout.bind(store);
    const away = () => new SluiceError('KUBE_AWAY', 'no answer');
    let lost = true;
    store.updateRollout = async (...args) => {
      const stored = await update(...args);
      if (!lost) return stored;
      lost = false;
      throw away();
    };
    await expect(rollouts.event(id, { type: 'pause', by: 'jo' })).rejects.toMatchObject({ code: 'KUBE_AWAY' });
    // It was stored all the same.
    expect((await rollouts.event(id, { type: 'resume', by: 'jo' })).phase).toBe('Progressing');
    expect((await store.rolloutRecord(id)).map((one) => one.seq)).toEqual([0, 1, 2, 3]);

    vi.useFakeTimers();
    try {
      store.updateRollout = () => Promise.reject(away());
      const [member] = (await rollouts.find(id)).members;
      rollouts.crashed('p0', member?.upgradeId as string);
      await vi.advanceTimersByTimeAsync(1);
      store.updateRollout = update;
      await vi.advanceTimersByTimeAsync(5_000);
      expect((await rollouts.find(id)).members[0]?.crashes).toBe(1);
    } finally {
      vi.useRealTimers();
    }
    expect(fleet.taken.length).toBeGreaterThan(0);
  });

  it('one that is stored begins, also when older ones can not be removed now', async () => {
    const { store, controller, fleet } = rig(1);
    store.pruneRollouts = () => Promise.reject(new SluiceError('KUBE_AWAY', 'no answer'));
    await expect(controller().create(spec())).resolves.toMatchObject({ phase: 'Progressing' });
    expect(fleet.taken).toHaveLength(1);
  });

  it('an empty selection and an unknown rollout are told by their codes', async () => {
    const rollouts = rig(0).controller();
    await expect(rollouts.create(spec())).rejects.toMatchObject({ code: 'PROXY_UNKNOWN' });
    await expect(rollouts.event('r1', { type: 'pause', by: 'jo' })).rejects.toMatchObject({ code: 'ROLLOUT_UNKNOWN' });
  });
});
