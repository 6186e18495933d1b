import { describe, expect, it } from 'vitest';
import { epochSaid as epoch } from '../testing/epoch-said.ts';
import {
  A,
  B,
  DRAINS,
  EMPTY,
  FLEET,
  type Made,
  OURS,
  pod,
  SERVES,
  type Strategy,
  sidecarSet,
  WISH,
} from '../testing/kruise-story.ts';
import { decidePod } from './in-place.ts';
import { readKruise } from './kruise-pod.ts';
import { decideKruisePod, decideSet, type SidecarSet } from './open-kruise.ts';
import type { AgentWords, FleetWish } from './provider.ts';

describe('decideSet', () => {
  const turn = (n: number) => ({ matchLabels: { 'turn.sluice.dev/sidecar': String(n) } });

  it('sets the image, and lets OpenKruise take nobody but those whose turn has come', () => {
    expect(decideSet(sidecarSet(A, {}, { 'sluice.dev/turn': '3' }), FLEET)).toMatchObject({
      type: 'change',
      patch: {
        metadata: { resourceVersion: '9', annotations: { 'sluice.dev/turn': '4', 'sluice.dev/image-before': A } },
        spec: {
          containers: [
            { name: 'other' },
            { name: 'proxy', image: B, upgradeStrategy: { hotUpgradeEmptyImage: EMPTY } },
          ],
          updateStrategy: { selector: turn(4), partition: 0, paused: false, maxUnavailable: 2 },
        },
      },
    });
  });

  it.each<[string, Strategy, Partial<FleetWish>, object]>([
    ['is ready when all is as wished', OURS, {}, { type: 'ready', image: B, emptyImage: EMPTY }],
    ['pauses', OURS, { paused: true }, { patch: { spec: { updateStrategy: { paused: true, selector: turn(4) } } } }],
    ['goes on', { ...OURS, paused: true }, {}, { patch: { spec: { updateStrategy: { paused: false } } } }],
    [
      'hands maxUnavailable over',
      OURS,
      { maxUnavailable: 5 },
      { patch: { spec: { updateStrategy: { maxUnavailable: 5 } } } },
    ],
    [
      'limits nothing itself where only the start counts: OpenKruise counts to the end of the old container',
      OURS,
      { until: 'serving' },
      { patch: { spec: { updateStrategy: { maxUnavailable: '100%' } } } },
    ],
    [
      'leaves the partition, and no selector, at the end',
      OURS,
      { kept: 3 },
      { patch: { spec: { updateStrategy: { selector: null, partition: 3, maxUnavailable: 2 } } } },
    ],
    ['has nothing to do at the end twice', { partition: 3, maxUnavailable: 2 }, { kept: 3 }, { type: 'ready' }],
    [
      'begins a turn of its own where somebody has set the image already',
      { partition: 3 },
      {},
      {
        patch: {
          metadata: { annotations: { 'sluice.dev/turn': '5' } },
          spec: { updateStrategy: { selector: turn(5), partition: 0 } },
        },
      },
    ],
    [
      'goes back to what was there before, as another turn',
      OURS,
      { back: true },
      {
        patch: {
          metadata: { annotations: { 'sluice.dev/turn': '5', 'sluice.dev/image-before': B } },
          spec: { containers: [{}, { image: A }], updateStrategy: { selector: turn(5) } },
        },
      },
    ],
  ])('%s', (_, strategy, wish, step) => {
    const set = sidecarSet(B, strategy, { 'sluice.dev/turn': '4', 'sluice.dev/image-before': A });
    expect(decideSet(set, { ...FLEET, ...wish })).toMatchObject(step);
  });

  it('goes back only once', () => {
    const back = sidecarSet(A, OURS, { 'sluice.dev/turn': '4', 'sluice.dev/image-before': B });
    expect(decideSet(back, { ...FLEET, back: true })).toEqual({ type: 'ready', image: A, emptyImage: EMPTY });
  });

  const changed = (spec: object): SidecarSet => ({ ...sidecarSet(A), spec: { ...sidecarSet(A).spec, ...spec } });
  it.each<[string, SidecarSet, Partial<FleetWish>]>([
    ['NoSuchContainer', sidecarSet(A), { container: 'envoy' }],
    ['NoSuchContainer', changed({ containers: [], initContainers: [{ name: 'proxy' }] }), {}],
    ['NotHotUpgrade', changed({ containers: [{ name: 'proxy', image: A }] }), {}],
    ['NotRollingUpdate', sidecarSet(A, { type: 'NotUpdate' }), {}],
    ['OtherPods', changed({ namespace: undefined, namespaceSelector: {} }), {}],
    ['OtherPods', sidecarSet(A), { namespace: 'default' }],
    ['OtherPods', sidecarSet(A), { selector: { matchLabels: { app: 'shop', tier: 'front' } } }],
    ['OtherSelector', sidecarSet(A, { selector: { matchLabels: { canary: 'yes' } } }), {}],
    ['EmptyIsTarget', sidecarSet(A), { image: EMPTY }],
    ['NoImageBefore', sidecarSet(B, OURS), { back: true }],
  ])('refuses by name: %s', (reason, set, wish) => {
    expect(decideSet(set, { ...FLEET, ...wish })).toMatchObject({ type: 'refused', reason });
  });

  it('takes a selector that says the same in other words', () => {
    const selector = { matchExpressions: [{ key: 'app', operator: 'In' as const, values: ['shop'] }] };
    expect(decideSet(sidecarSet(A), { ...FLEET, selector })).toMatchObject({ type: 'change' });
  });
});

describe('decideKruisePod', () => {
  const set = sidecarSet(B, OURS, { 'sluice.dev/turn': '4' });

  it.each<[string, Made, AgentWords, object]>([
    [
      'gives a Pod its turn by a label',
      { images: [A, EMPTY], turn: '3' },
      { '1': SERVES },
      {
        type: 'upgrade',
        change: { container: 'proxy-2', image: B },
        patch: { metadata: { uid: 'u', resourceVersion: '7', labels: { 'turn.sluice.dev/sidecar': '4' } } },
      },
    ],
    [
      'waits until OpenKruise takes it',
      { images: [A, EMPTY], turn: '4' },
      { '1': SERVES },
      { type: 'wait', started: true, why: 'OpenKruise has not begun it yet' },
    ],
    ['waits for its agent', { images: [A, EMPTY] }, {}, { type: 'wait', started: false }],
    [
      'says that the kubelet is behind',
      { images: [A, B], working: '2', turn: '4', runs: [A, EMPTY] },
      { '1': SERVES },
      { type: 'wait', started: true },
    ],
    [
      'OpenKruise resets early: the old container is held, and that is no end',
      { images: [EMPTY, B], working: '2', turn: '4', runs: [A, B] },
      { '1': DRAINS, '2': SERVES },
      { type: 'wait', started: true, why: 'container proxy-1 is becoming Empty' },
    ],
    [
      'the reset is left to OpenKruise',
      { images: [A, B], working: '2', turn: '4' },
      { '1': { epochs: [epoch('ended')] }, '2': SERVES },
      { type: 'wait', started: true },
    ],
    ['is done', { images: [EMPTY, B], working: '2', turn: '4' }, { '2': SERVES }, { type: 'done' }],
    [
      'clears what OpenKruise takes for done, to try once more',
      { images: [A, EMPTY], hash: `h-${B}` },
      { '1': SERVES },
      {
        type: 'upgrade',
        patch: {
          metadata: {
            annotations: {
              'kruise.io/sidecarset-hash': '{"sidecar":{"hash":"","sidecarSetName":"sidecar"},"logs":{"hash":"l"}}',
            },
          },
        },
      },
    ],
    [
      'names one that does not come up',
      { images: [A, B], working: '2', stuck: 'proxy-2' },
      { '1': SERVES },
      { type: 'failed', reason: 'CrashLoopBackOff', undo: { container: 'proxy-2', image: EMPTY } },
    ],
    [
      'refuses a Pod whose template has changed',
      { images: [A, EMPTY], withoutImage: 'o' },
      { '1': SERVES },
      { reason: 'NotUpgradable' },
    ],
    [
      'refuses a Pod of which OpenKruise would end the one that serves',
      { images: [A, EMPTY], working: '2' },
      { '1': SERVES },
      { reason: 'WorkingContainer' },
    ],
    ['refuses both Empty', { images: [EMPTY, EMPTY] }, {}, { reason: 'NothingServes' }],
  ])('%s', (_, made, agents, step) => {
    expect(decideKruisePod(pod(made), set, WISH, agents)).toMatchObject(step);
  });

  it('refuses a Pod that it did not inject; in place one that it did', () => {
    const one = pod({ images: [A, EMPTY] });
    expect(decidePod(one, WISH, { '1': SERVES })).toMatchObject({ type: 'refused', reason: 'OwnedByKruise' });
    const bare = { ...one, metadata: { ...one.metadata, annotations: {} } };
    expect(decideKruisePod(bare, set, WISH, { '1': SERVES })).toMatchObject({ reason: 'NotInjected' });
    expect(decidePod(bare, WISH, { '1': SERVES })).toMatchObject({ type: 'upgrade' });
  });

  it('on the way back makes the working container Empty itself, for OpenKruise never does', () => {
    const agents = { '1': SERVES, '2': { epochs: [epoch('crashed')] } };
    const step = decideKruisePod(pod({ images: [A, B], working: '2' }), set, { ...WISH, image: A }, agents);
    expect(step).toMatchObject({ type: 'undo', change: { container: 'proxy-2', image: EMPTY } });
  });

  it('a turn that OpenKruise can not take while it is paused has not begun', () => {
    const paused = sidecarSet(B, { ...OURS, paused: true }, { 'sluice.dev/turn': '4' });
    const step = decideKruisePod(pod({ images: [A, EMPTY], turn: '4' }), paused, WISH, { '1': SERVES });
    expect(step).toEqual({ type: 'wait', started: false, why: 'SidecarSet sidecar is paused' });
  });

  it('waits while the set has another image', () => {
    expect(decideKruisePod(pod({ images: [A, EMPTY] }), sidecarSet('mesh/proxy:c'), WISH, { '1': SERVES })).toEqual({
      type: 'wait',
      started: false,
      why: 'SidecarSet sidecar has mesh/proxy:c',
    });
  });
});

it('reads what OpenKruise has written, and nothing of what is spoilt', () => {
  const one = pod({ images: [A, B], working: '2', runs: [A, EMPTY] });
  const state = {
    sidecar: { lastContainerStatuses: { 'proxy-2': { imageID: `id-${EMPTY}` }, 'proxy-1': { imageID: 'older' } } },
  };
  const annotations = {
    ...one.metadata?.annotations,
    'kruise.io/sidecarset-inplace-update-state': JSON.stringify(state),
  };
  expect(readKruise({ ...one, metadata: { ...one.metadata, annotations } }, 'sidecar', 'proxy')).toEqual({
    injected: true,
    hash: `h-${A}`,
    hashWithoutImage: 'h',
    working: 'proxy-2',
    versions: { '1': 1, '2': 44 },
    pending: ['proxy-2'],
  });
  const spoilt = { 'kruise.io/sidecarset-hash': '{', 'kruise.io/sidecarset-working-hotupgrade-container': '7' };
  expect(readKruise({ metadata: { annotations: spoilt } }, 'sidecar', 'proxy')).toMatchObject({
    injected: false,
    hash: '',
    pending: [],
  });
  expect(
    readKruise({ metadata: { annotations: { 'kruise.io/sidecarset-hash': '{"sidecar":"old"}' } } }, 'sidecar', 'x')
      .hash,
  ).toBe('old');
});
