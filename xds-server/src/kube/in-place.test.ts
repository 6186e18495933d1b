import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import type { EpochState, EpochStatus } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { epochSaid as epoch } from '../testing/epoch-said.ts';
import { KubeError } from './client.ts';
import { decidePod, imageOf, patchOf, sameImage } from './in-place.ts';
import { InPlaceProvider } from './in-place-driver.ts';
import type { AgentWords, ImageChange, Slot, Wish } from './provider.ts';

const EMPTY = 'mesh/empty:1';
const WISH: Wish = { container: 'proxy', emptyImage: EMPTY, image: 'mesh/proxy:b' };
const A = 'mesh/proxy:a';
const B = 'mesh/proxy:b';

const says = (...epochs: EpochStatus[]) => ({ epochs });
const SERVES = says(epoch('serving'));

const running = (image: string): Partial<V1ContainerStatus> => ({ image, state: { running: {} } });
const waiting = (image: string, reason: string, last = {}): Partial<V1ContainerStatus> => ({
  image,
  state: { waiting: { reason } },
  lastState: last,
});

interface Pair {
  images: [string, string];
  status?: [Partial<V1ContainerStatus>, Partial<V1ContainerStatus>];
  native?: boolean;
  more?: string[];
}

function pod({ images, status = [running(images[0]), running(images[1])], native = false, more = [] }: Pair): V1Pod {
  const restartPolicy = native ? { restartPolicy: 'Always' } : {};
  const pair = images.map((image, n) => ({ name: `proxy-${n + 1}`, image, ...restartPolicy }));
  const statuses = status.map((one, n) => ({ name: `proxy-${n + 1}`, ...one }) as V1ContainerStatus);
  const app = ['app', ...more].map((name) => ({ name, image: 'app:1' }));
  return {
    metadata: { namespace: 'default', name: 'shop', uid: 'u', resourceVersion: '7' },
    spec: native ? { initContainers: pair, containers: app } : { containers: [...app, ...pair] },
    status: native ? { initContainerStatuses: statuses } : { containerStatuses: statuses },
  };
}

const upgraded = pod({ images: [A, B] });

describe('decidePod', () => {
  it.each<[string, Pair, AgentWords, object]>([
    [
      'begins with the Empty one',
      { images: [A, EMPTY] },
      { '1': SERVES },
      { type: 'upgrade', change: { container: 'proxy-2', init: false, image: B } },
    ],
    [
      'goes the other way next',
      { images: [EMPTY, A] },
      { '2': SERVES },
      { type: 'upgrade', change: { container: 'proxy-1', image: B } },
    ],
    [
      'finds native sidecars',
      { images: [A, EMPTY], native: true },
      { '1': SERVES },
      { type: 'upgrade', change: { container: 'proxy-2', init: true } },
    ],
    ['is done', { images: [EMPTY, B] }, {}, { type: 'done' }],
    ['begins nothing while nobody is heard', { images: [A, EMPTY] }, {}, { type: 'wait', started: false }],
    [
      'begins nothing while nothing serves',
      { images: [A, EMPTY] },
      { '1': says(epoch('starting')) },
      { type: 'wait', started: false },
    ],
    [
      'waits until the kubelet runs the Empty one',
      { images: [A, EMPTY], status: [running(A), running(B)] },
      { '1': SERVES },
      { type: 'wait', started: true },
    ],
    [
      'waits while the new one starts',
      { images: [A, B] },
      { '1': SERVES },
      { type: 'wait', started: true, why: `${B} starts in container proxy-2` },
    ],
    [
      'waits while protected connections are left',
      { images: [A, B] },
      { '1': says(epoch('draining', false)), '2': SERVES },
      { type: 'wait', why: 'container proxy-1 drains: 1 protected connections are left' },
    ],
    ['waits without a verdict', { images: [A, B] }, { '1': says(epoch('draining')), '2': SERVES }, { type: 'wait' }],
    [
      'waits while the old agent is away',
      { images: [A, B] },
      { '2': SERVES },
      { type: 'wait', why: 'the agent of container proxy-1 is away: there is no verdict' },
    ],
    [
      'resets on the verdict',
      { images: [A, B] },
      { '1': says(epoch('ended'), epoch('draining', true)), '2': SERVES },
      { type: 'reset', change: { container: 'proxy-1', image: EMPTY } },
    ],
    ['resets one that has ended', { images: [A, B] }, { '1': says(epoch('ended')), '2': SERVES }, { type: 'reset' }],
    [
      'waits for each of its epochs',
      { images: [A, B] },
      { '1': says(epoch('draining', true), epoch('draining', false)), '2': SERVES },
      { type: 'wait' },
    ],
    [
      'resets a container that runs no more',
      { images: [A, B], status: [{ image: A, state: { terminated: { exitCode: 1 } } }, running(B)] },
      { '2': SERVES },
      { type: 'reset', change: { container: 'proxy-1' } },
    ],
    ['does nothing while both say that they serve', { images: [A, B] }, { '1': SERVES, '2': SERVES }, { type: 'wait' }],
    [
      'names a new one that does not come up',
      { images: [A, B], status: [running(A), waiting(B, 'ImagePullBackOff')] },
      { '1': SERVES },
      { type: 'failed', reason: 'ImagePullBackOff', undo: { container: 'proxy-2', image: EMPTY } },
    ],
    [
      'undoes nothing when nobody is known to serve',
      { images: [A, B], status: [running(A), waiting(B, 'CrashLoopBackOff')] },
      {},
      { type: 'failed', undo: undefined },
    ],
    [
      'lets one that serves drain before a third image',
      { images: ['mesh/proxy:0', A] },
      { '1': says(epoch('draining', false)), '2': SERVES },
      { type: 'wait' },
    ],
    [
      'resets before a third image',
      { images: ['mesh/proxy:0', A] },
      { '1': says(epoch('draining', true)), '2': SERVES },
      { type: 'reset', change: { container: 'proxy-1' } },
    ],
    [
      'flips back: what drains has to end first',
      { images: [B, A] },
      { '1': says(epoch('draining', false)), '2': SERVES },
      { type: 'wait' },
    ],
    [
      'refuses a Pod of another injector, by name',
      { images: [A, EMPTY], more: ['istio-proxy'] },
      { '1': SERVES },
      { type: 'refused', reason: 'ForeignProxy', why: expect.stringContaining('istio-proxy') },
    ],
    ['refuses a pair of Empty ones', { images: [EMPTY, EMPTY] }, {}, { type: 'refused', reason: 'NothingServes' }],
  ])('%s', (_, pair, agents, step) => {
    expect(decidePod(pod(pair), WISH, agents)).toMatchObject(step);
  });

  it('refuses a Pod without such containers, and an init container that is no sidecar', () => {
    expect(decidePod(upgraded, { ...WISH, container: 'envoy' }, {})).toMatchObject({ reason: 'NoSuchContainers' });
    const once = pod({ images: [A, EMPTY], native: true });
    for (const container of once.spec?.initContainers ?? []) delete container.restartPolicy;
    expect(decidePod(once, WISH, { '1': SERVES })).toMatchObject({ reason: 'NoSuchContainers' });
  });

  it('leaves a Pod alone that ends', () => {
    const ending = { ...upgraded, metadata: { ...upgraded.metadata, deletionTimestamp: new Date(0) } };
    expect(decidePod(ending, WISH, { '2': SERVES })).toEqual({ type: 'gone' });
  });

  const states = fc.constantFrom<EpochState>('starting', 'serving', 'draining', 'ended', 'crashed');
  const word = fc.option(
    fc
      .array(fc.tuple(states, fc.boolean()), { maxLength: 3 })
      .map((list) => says(...list.map(([state, safe]) => epoch(state, safe)))),
    { nil: undefined },
  );
  const image = fc.constantFrom(A, B, EMPTY, 'mesh/proxy:0');
  const status = fc.oneof(
    image.map(running),
    fc
      .tuple(image, fc.constantFrom('CrashLoopBackOff', 'ContainerCreating'))
      .map(([name, reason]) => waiting(name, reason)),
  );

  it('makes a container Empty only when its agent holds nothing or it does not run, and only while the other one serves', () => {
    const pairs = fc.record({ images: fc.tuple(image, image), status: fc.tuple(status, status), native: fc.boolean() });
    fc.assert(
      fc.property(pairs, word, word, (pair, one, two) => {
        const agents = { '1': one, '2': two };
        const whole = pod(pair);
        const step = decidePod(whole, WISH, agents);
        const change = 'change' in step ? step.change : 'undo' in step ? step.undo : undefined;
        if (change === undefined) return;
        const slot = change.container.slice(-1) as Slot;
        const other = slot === '1' ? agents['2'] : agents['1'];
        expect(other?.epochs.some(({ state }) => state === 'serving')).toBe(true);
        if (step.type === 'upgrade') expect(pair.images[Number(slot) - 1]).toBe(EMPTY);
        else if (agents[slot] !== undefined) {
          const live = agents[slot].epochs.filter(({ state }) => state !== 'ended' && state !== 'crashed');
          expect(live.every(({ state, verdict }) => state === 'draining' && verdict?.safe)).toBe(true);
        } else expect(pair.status[Number(slot) - 1]?.state?.running).toBeUndefined();
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('InPlaceProvider', () => {
  const OPTIONS = { begin: true, undo: false };
  const record = () => {
    const sent: unknown[] = [];
    const patch = async (...args: unknown[]) => sent.push(args.slice(1, 4)) as never;
    return { sent, provider: new InPlaceProvider({ patch }) };
  };

  it('patches one image, of this Pod as it was seen', async () => {
    const { sent, provider } = record();
    await provider.step(pod({ images: [A, EMPTY], native: true }), WISH, { '1': SERVES }, OPTIONS);
    expect(sent).toEqual([
      [
        { namespace: 'default', name: 'shop' },
        'strategic',
        { metadata: { uid: 'u', resourceVersion: '7' }, spec: { initContainers: [{ name: 'proxy-2', image: B }] } },
      ],
    ]);
  });

  it('begins nothing out of turn, but resets what has begun', async () => {
    const { sent, provider } = record();
    const late = { begin: false, undo: false };
    expect(await provider.step(pod({ images: [A, EMPTY] }), WISH, { '1': SERVES }, late)).toMatchObject({
      type: 'wait',
    });
    expect(sent).toEqual([]);
    const agents = { '1': says(epoch('ended')), '2': SERVES };
    expect(await provider.step(upgraded, WISH, agents, late)).toMatchObject({ type: 'reset' });
    expect(sent.length).toBe(1);
  });

  it('takes a failed one back only when told to', async () => {
    const { sent, provider } = record();
    const failed = pod({ images: [A, B], status: [running(A), waiting(B, 'CrashLoopBackOff')] });
    expect(await provider.step(failed, WISH, { '1': SERVES }, OPTIONS)).toMatchObject({ type: 'failed' });
    expect(sent).toEqual([]);
    const step = await provider.step(failed, WISH, { '1': SERVES }, { ...OPTIONS, undo: true });
    expect(step).toMatchObject({ type: 'undo', change: { container: 'proxy-2', image: EMPTY } });
  });

  it('hands a conflict on', async () => {
    const conflict = new KubeError(409, 'Conflict', 'changed');
    const provider = new InPlaceProvider({ patch: () => Promise.reject(conflict) });
    await expect(provider.step(pod({ images: [A, EMPTY] }), WISH, { '1': SERVES }, OPTIONS)).rejects.toBe(conflict);
  });
});

it.each([
  ['nginx', 'docker.io/library/nginx:latest', true],
  ['mesh/proxy:a', 'docker.io/mesh/proxy:a', true],
  ['mesh/proxy:a', 'mesh/proxy:b', false],
  ['localhost/proxy:a', 'localhost/proxy:a', true],
  ['host:5000/proxy', 'host:5000/proxy:latest', true],
  ['sha256:0123', 'mesh/proxy:b', true],
])('%s and %s are the same image: %s', (said, wanted, same) => {
  expect(sameImage(said, wanted)).toBe(same);
});

it('a version is the tag of the image that serves', () => {
  expect(imageOf({ image: B }, A)).toBe(B);
  expect(imageOf({ version: '1.40.0' }, 'host:5000/mesh/proxy:1.39.3')).toBe('host:5000/mesh/proxy:1.40.0');
  expect(imageOf({ version: '1.40.0' }, 'host:5000/mesh/proxy')).toBe('host:5000/mesh/proxy:1.40.0');
  expect(imageOf({ version: '1.40.0' }, 'mesh/proxy@sha256:0123')).toBeUndefined();
});

it('a patch names the list that the container is in', () => {
  const change: ImageChange = { container: 'proxy-1', init: false, image: EMPTY };
  expect(patchOf(upgraded, change)).toMatchObject({ spec: { containers: [{ name: 'proxy-1', image: EMPTY }] } });
});
