import type { V1Pod } from '@kubernetes/client-node';
import type { EpochState, EpochStatus, RolloutMember, Verdict } from '@sluice/contract';
import { describe, expect, it, vi } from 'vitest';
import { SILENT } from '../log.ts';
import { newRollout, type RolloutState } from '../rollout/state.ts';
import { KubeError } from './client.ts';
import { decidePod } from './in-place.ts';
import { InPlaceProvider } from './in-place-driver.ts';
import { KubeFleet } from './kube-fleet.ts';
import { observePod, type PodFacts, refusalOf, START_LIMIT_MS, slotContainer } from './pod-view.ts';
import type { AgentWords } from './provider.ts';
import { podOfProxy } from './words.ts';

const EMPTY = 'mesh/empty:1';
const [A, B] = ['mesh/proxy:a', 'mesh/proxy:b'];
const pods = {
  namespace: 'shop',
  name: 'web',
  uid: 'h',
  selector: {},
  container: 'proxy',
  target: { image: B },
  provider: 'InPlace',
  emptyImage: EMPTY,
} as const;

function pod(images: readonly [string, string], waiting?: readonly [number, string]): V1Pod {
  const names = ['proxy-1', 'proxy-2'];
  const state = (n: number) => (waiting?.[0] === n ? { waiting: { reason: waiting[1] } } : { running: {} });
  return {
    metadata: { name: 'web-0', namespace: 'shop', uid: 'p', resourceVersion: '7', labels: { app: 'web' } },
    spec: { nodeName: 'n1', containers: names.map((name, n) => ({ name, image: images[n] as string })) },
    status: {
      conditions: [{ type: 'Ready', status: 'True' }],
      containerStatuses: names.map((name, n) => ({
        name,
        image: images[n] as string,
        imageID: '',
        ready: true,
        restartCount: 0,
        state: state(n),
      })),
    },
  };
}

const epoch = (state: EpochState, safe = false): EpochStatus => ({
  epoch: 1,
  slot: '1',
  state,
  version: '1',
  pid: 1,
  startedAt: 0,
  verdict: { safe, protected: safe ? 0 : 1 } as Verdict,
});
const says = (state: EpochState, safe?: boolean) => ({ epochs: [epoch(state, safe)] });
const facts = (one: V1Pod, words: AgentWords, more: Partial<PodFacts> = {}): PodFacts => ({
  pod: one,
  words,
  pods,
  emptyImage: EMPTY,
  decide: decidePod,
  ...more,
});
const member = (state: RolloutMember['state'], more: Partial<RolloutMember> = {}): RolloutMember => ({
  ...{ name: 'web-0.shop', uid: 'p', zone: '', state, since: 1, reason: '', failures: 0, crashes: 0, cut: 0 },
  ...more,
});
const ordered = member('starting', { upgradeId: 'r-1', from: A });
const FRESH = pod([A, EMPTY]);
const SERVES = { '1': says('serving') };

describe('observePod', () => {
  it('sees a Pod that waits for its turn', () => {
    expect(observePod(facts(FRESH, SERVES), undefined, 2)).toEqual({
      name: 'web-0.shop',
      uid: 'p',
      labels: { app: 'web', 'kubernetes.io/hostname': 'n1' },
      reachable: true,
      available: true,
      upToDate: false,
      serving: A,
    });
    expect(observePod(facts(FRESH, {}), undefined, 2)).toMatchObject({ reachable: false, available: false });
  });

  it.each<[string, V1Pod, AgentWords, RolloutMember, string | undefined]>([
    ['an order that has not begun', FRESH, SERVES, ordered, undefined],
    ['one that starts', pod([A, B]), SERVES, ordered, 'starting'],
    ['one that serves', pod([A, B]), { '1': says('draining'), '2': says('serving') }, ordered, 'serving'],
    ['one whose reset is due', pod([A, B]), { '1': says('draining', true), '2': says('serving') }, ordered, 'serving'],
    ['one that is done', pod([EMPTY, B]), { '2': says('serving') }, ordered, 'done'],
    ['one that does not come up', pod([A, B], [1, 'ErrImagePull']), SERVES, ordered, 'failed'],
    [
      'an old container that came to nothing beside the new one',
      pod([A, B], [0, 'CrashLoopBackOff']),
      { '2': says('serving') },
      ordered,
      'serving',
    ],
    [
      'a flip back that has not begun',
      pod([EMPTY, B]),
      { '2': says('serving') },
      member('flipping', { upgradeId: 'r-1', backId: 'r-2', from: A }),
      undefined,
    ],
    [
      'a flip back that waits for the drain',
      pod([A, B]),
      { '1': says('draining'), '2': says('serving') },
      member('flipping', { upgradeId: 'r-1', backId: 'r-2', from: A }),
      'starting',
    ],
    [
      'a flip back that is done',
      pod([A, EMPTY]),
      SERVES,
      member('flipping', { upgradeId: 'r-1', backId: 'r-2', from: A }),
      'done',
    ],
  ])('tells %s', (_, one, words, known, expected) => {
    expect(observePod(facts(one, words), known, 2)?.step?.state).toBe(expected);
  });

  it('takes one that went back for one that does not have the target', () => {
    const back = member('rolledBack', { upgradeId: 'r-1', backId: 'r-2', from: A });
    expect(observePod(facts(FRESH, SERVES), back, 2)).toMatchObject({ upToDate: false, available: true });
    expect(observePod(facts(pod([EMPTY, B]), { '2': says('serving') }), back, 2)).toMatchObject({ upToDate: true });
    const upgraded = member('upgraded', { upgradeId: 'r-1', from: A });
    expect(observePod(facts(pod([EMPTY, B]), {}), upgraded, 2)).toMatchObject({ upToDate: true, available: false });
  });

  it('gives up a start that takes too long', () => {
    const seen = (now: number) => observePod(facts(pod([A, B]), SERVES), ordered, now)?.step?.state;
    expect([seen(START_LIMIT_MS), seen(START_LIMIT_MS + 2)]).toEqual(['starting', 'failed']);
  });

  it('knows another Pod of the same name, and one that has no part', () => {
    const other = { ...FRESH, metadata: { ...FRESH.metadata, uid: 'q' } };
    expect(observePod(facts(other, SERVES), ordered, 2)).toMatchObject({ uid: 'q' });
    expect(observePod(facts(other, SERVES), ordered, 2)?.step).toBeUndefined();
    const deleted = { ...FRESH, metadata: { ...FRESH.metadata, deletionTimestamp: new Date() } };
    expect(observePod(facts(deleted, SERVES), ordered, 2)).toBeUndefined();
    const bare = { ...FRESH, spec: { containers: [{ name: 'app' }] } };
    expect(observePod(facts(bare, {}), undefined, 2)).toBeUndefined();
    expect(refusalOf(facts(bare, {}))).toMatchObject({ reason: 'NoSuchContainers' });
    const digest = facts(pod(['mesh/proxy@sha256:0', EMPTY]), SERVES, { pods: { ...pods, target: { version: '2' } } });
    expect(observePod(digest, undefined, 2)).toBeUndefined();
    expect(refusalOf(digest)).toMatchObject({ reason: 'NoTag' });
  });
});

describe('KubeFleet', () => {
  function rig(one: V1Pod, words: AgentWords) {
    const patch = vi.fn(async (..._: readonly unknown[]) => ({}) as never);
    const now = { pod: one, words };
    const provider = new InPlaceProvider({ patch });
    const fleet = new KubeFleet({
      pod: () => now.pod,
      podsOf: () => [now.pod],
      words: { of: () => now.words, onChange: () => () => undefined },
      means: () => ({ provider, emptyImage: EMPTY }),
      cuts: async () => 3,
      log: SILENT,
      signal: new AbortController().signal,
    });
    const state = (known: RolloutMember): RolloutState => ({
      ...newRollout('r', { pods } as RolloutState['spec'], 1),
      members: [known],
    });
    return { fleet, patch, state, now };
  }

  it('gives an order once for a version of the Pod, however often it comes', async () => {
    const { fleet, patch, state, now } = rig(FRESH, SERVES);
    const order = { type: 'start', member: 'web-0.shop', id: 'r-1' } as const;
    await fleet.carryOut(order, state(ordered));
    await fleet.carryOut(order, state(ordered));
    expect(await fleet.carryOn(state(ordered))).toBe(1);
    expect(patch).toHaveBeenCalledTimes(1);
    now.pod = { ...FRESH, metadata: { ...FRESH.metadata, resourceVersion: '8' } };
    await fleet.carryOn(state(ordered));
    expect(patch).toHaveBeenCalledTimes(2);
  });

  it('begins nobody whose turn has not come, resets whom it began, and takes back what failed once that is known', async () => {
    const waits = rig(FRESH, SERVES);
    await waits.fleet.carryOn(waits.state(member('waiting')));
    expect(waits.patch).not.toHaveBeenCalled();
    const drained = rig(pod([A, B]), { '1': says('draining', true), '2': says('serving') });
    await drained.fleet.carryOn(drained.state(member('draining', { upgradeId: 'r-1', from: A })));
    expect(drained.patch.mock.calls[0]?.[3]).toMatchObject({ spec: { containers: [{ image: EMPTY }] } });
    const stuck = rig(pod([A, B], [1, 'ErrImagePull']), SERVES);
    await stuck.fleet.carryOn(stuck.state(ordered));
    expect(stuck.patch).not.toHaveBeenCalled();
    await stuck.fleet.carryOn(stuck.state(member('failed', { upgradeId: 'r-1', from: A })));
    expect(stuck.patch).toHaveBeenCalledTimes(1);
    // What an earlier rollout left behind would fail the next one at once.
    const before = rig(pod([A, 'mesh/proxy:c'], [1, 'ErrImagePull']), SERVES);
    await before.fleet.carryOn(before.state(member('waiting')));
    expect(before.patch.mock.calls[0]?.[3]).toMatchObject({
      spec: { containers: [{ name: 'proxy-2', image: EMPTY }] },
    });
  });

  it.each(['Aborting', 'RollingBack'] as const)('begins nobody any more in phase %s', async (phase) => {
    const { fleet, patch, state } = rig(FRESH, SERVES);
    await fleet.carryOn({ ...state(ordered), phase });
    expect(patch).not.toHaveBeenCalled();
  });

  it('takes a Pod that changed meanwhile for one that is to be looked at again, and any other error for one', async () => {
    const { fleet, patch, state } = rig(FRESH, SERVES);
    patch.mockRejectedValueOnce(new KubeError(409, 'Conflict', 'it changed'));
    const order = { type: 'start', member: 'web-0.shop', id: 'r-1' } as const;
    await fleet.carryOut(order, state(ordered));
    patch.mockRejectedValueOnce(new KubeError(403, 'Forbidden', 'no'));
    await expect(fleet.carryOut(order, state(ordered))).rejects.toThrow('no');
  });

  it('sees nobody of a HotUpgrade that is gone, and tells of a provider that is not ready for one that is there', async () => {
    const { state, now } = rig(FRESH, SERVES);
    const fleet = (all: readonly V1Pod[]) =>
      new KubeFleet({
        pod: () => now.pod,
        podsOf: () => all,
        words: { of: () => now.words, onChange: () => () => undefined },
        means: () => undefined,
        cuts: async () => 0,
        log: SILENT,
        signal: new AbortController().signal,
      });
    expect(await fleet([]).observe(state(ordered))).toEqual([]);
    await expect(fleet([FRESH]).observe(state(ordered))).rejects.toMatchObject({ code: 'PROVIDER_NOT_READY' });
  });

  it('asks what was cut only of who is done', async () => {
    const told = { epochs: [{ ...epoch('serving'), upgradeId: 'slot-2-1' }] };
    const { fleet, state } = rig(pod([EMPTY, B]), { '2': told });
    expect(await fleet.observe(state(ordered))).toMatchObject([{ step: { state: 'done', cut: 3 } }]);
  });
});

it('the container of a slot is that of the pair, whatever the app calls its own', () => {
  const app = {
    ...FRESH,
    spec: { containers: [{ name: 'web-1', image: 'web:7' }, ...(FRESH.spec?.containers ?? [])] },
  };
  expect(slotContainer(app, 'proxy', '1')?.image).toBe(A);
  expect(slotContainer(app, 'web', '1')?.image).toBe('web:7');
  expect(slotContainer(app, 'proxy', '3')).toBeUndefined();
});

it('the name of a proxy tells its Pod, also one with dots', () => {
  expect(podOfProxy('web-0.a.shop')).toEqual({ namespace: 'shop', name: 'web-0.a' });
  for (const none of ['edge', '.shop', 'web.']) expect(podOfProxy(none)).toBeUndefined();
});
