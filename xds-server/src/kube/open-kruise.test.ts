import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import type { EpochState, EpochStatus, Verdict } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { KubeError } from './client.ts';
import { decidePod } from './in-place.ts';
import { readKruise } from './kruise-pod.ts';
import { decideKruisePod, decideSet, type SidecarSet, undoOf } from './open-kruise.ts';
import { OpenKruiseProvider } from './open-kruise-driver.ts';
import type { AgentWords, FleetWish, Wish } from './provider.ts';

const EMPTY = 'mesh/empty:1';
const A = 'mesh/proxy:a';
const B = 'mesh/proxy:b';
const WISH: Wish = { container: 'proxy', emptyImage: EMPTY, image: B };
const FLEET: FleetWish = {
  namespace: 'shop',
  selector: { matchLabels: { app: 'shop' } },
  container: 'proxy',
  image: B,
  back: false,
  paused: false,
  maxUnavailable: 2,
  until: 'reset',
};

type Strategy = NonNullable<NonNullable<SidecarSet['spec']>['updateStrategy']>;
const OURS: Strategy = { selector: { matchLabels: { 'turn.sluice.dev/sidecar': '4' } }, maxUnavailable: 2 };

function sidecarSet(
  image: string,
  updateStrategy: Strategy = {},
  annotations: Record<string, string> = {},
): SidecarSet {
  const hashes = { 'kruise.io/sidecarset-hash': `h-${image}`, 'kruise.io/sidecarset-hash-without-image': 'h' };
  return {
    metadata: { name: 'sidecar', resourceVersion: '9', annotations: { ...hashes, ...annotations } },
    spec: {
      namespace: 'shop',
      selector: { matchLabels: { app: 'shop' } },
      containers: [
        { name: 'other', image: 'x' },
        { name: 'proxy', image, upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: EMPTY } },
      ],
      updateStrategy,
    },
  };
}

const epoch = (state: EpochState, safe?: boolean): EpochStatus => ({
  epoch: 1,
  slot: '1',
  state,
  version: '1.40.0',
  pid: 1,
  startedAt: 0,
  ...(safe !== undefined && { verdict: { safe, protected: safe ? 0 : 1 } as Verdict }),
});
const SERVES = { epochs: [epoch('serving')] };
const DRAINS = { epochs: [epoch('draining', false)] };

interface Made {
  readonly images: readonly [string, string];
  readonly working?: '1' | '2';
  readonly hash?: string;
  readonly withoutImage?: string;
  readonly turn?: string;
  readonly runs?: readonly [string, string];
  readonly stuck?: string;
}

/** A Pod as OpenKruise's webhook and its controller write it. */
function pod({ images, working = '1', hash = `h-${A}`, withoutImage = 'h', turn, runs = images, stuck }: Made): V1Pod {
  const of = (value: string) =>
    JSON.stringify({ sidecar: { hash: value, sidecarSetName: 'sidecar' }, logs: { hash: 'l' } });
  const status = (n: number): V1ContainerStatus => ({
    name: `proxy-${n + 1}`,
    image: runs[n] as string,
    imageID: `id-${runs[n]}`,
    ready: true,
    restartCount: 0,
    state: stuck === `proxy-${n + 1}` ? { waiting: { reason: 'CrashLoopBackOff' } } : { running: {} },
  });
  return {
    metadata: {
      namespace: 'shop',
      name: 'one',
      uid: 'u',
      resourceVersion: '7',
      labels: turn === undefined ? {} : { 'turn.sluice.dev/sidecar': turn },
      annotations: {
        'kruise.io/sidecarset-injected-list': 'logs,sidecar',
        'kruise.io/sidecarset-hash': of(hash),
        'kruise.io/sidecarset-hash-without-image': of(withoutImage),
        'kruise.io/sidecarset-working-hotupgrade-container': JSON.stringify({
          logs: 'logs-1',
          proxy: `proxy-${working}`,
        }),
        'version.sidecarset.kruise.io/proxy-1': '1',
        'version.sidecarset.kruise.io/proxy-2': '44',
      },
    },
    spec: { containers: images.map((image, n) => ({ name: `proxy-${n + 1}`, image })) },
    status: { containerStatuses: [status(0), status(1)] },
  };
}

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

describe('OpenKruiseProvider', () => {
  const record = (set: SidecarSet | KubeError) => {
    const sent: unknown[][] = [];
    let stored = set;
    const get = async () => {
      if (stored instanceof KubeError) throw stored;
      return stored as never;
    };
    const patch = async (...args: unknown[]) => {
      sent.push(args.slice(0, 4));
      const { spec } = args[3] as { spec?: { updateStrategy?: Strategy; containers?: never } };
      if (spec?.updateStrategy !== undefined && !(stored instanceof KubeError)) {
        const { selector, ...rest } = spec.updateStrategy;
        const chosen = selector === null ? {} : { selector };
        stored = { ...stored, spec: { ...stored.spec, ...spec, updateStrategy: { ...rest, ...chosen } } } as SidecarSet;
      }
      return stored as never;
    };
    return { sent, provider: new OpenKruiseProvider({ get, patch }, 'sidecar') };
  };
  const OPTIONS = { begin: true, undo: false };

  it('says by name that there is no such set', async () => {
    // The second: a cluster without OpenKruise, whose API server answers `404 page not found`.
    for (const reason of ['NotFound', 'Unknown']) {
      const { provider } = record(new KubeError(404, reason, 'no such kind'));
      expect(await provider.prepare(FLEET)).toMatchObject({ type: 'refused', reason: 'NoSidecarSet' });
    }
  });

  it('prepares the set once, and gives a Pod its turn only when it may begin', async () => {
    const { sent, provider } = record(sidecarSet(A));
    for (let i = 0; i < 2; i++)
      expect(await provider.prepare(FLEET)).toEqual({ type: 'ready', image: B, emptyImage: EMPTY });
    expect(sent).toHaveLength(1);
    const one = pod({ images: [A, EMPTY] });
    expect(await provider.step(one, WISH, { '1': SERVES }, { ...OPTIONS, begin: false })).toMatchObject({
      type: 'wait',
    });
    expect(sent).toHaveLength(1);
    expect(await provider.step(one, WISH, { '1': SERVES }, OPTIONS)).toEqual({
      type: 'upgrade',
      change: { container: 'proxy-2', init: false, image: B },
      why: expect.stringContaining('its turn has come'),
    });
    expect(sent[1]?.slice(1, 3)).toEqual([{ namespace: 'shop', name: 'one' }, 'strategic']);
  });

  it('takes a failed one back in one patch: the image, and whom OpenKruise takes for the working one', async () => {
    const { sent, provider } = record(sidecarSet(B, OURS));
    const failed = pod({ images: [A, B], working: '2', turn: '4', stuck: 'proxy-2' });
    expect(await provider.step(failed, WISH, { '1': SERVES }, OPTIONS)).toMatchObject({ type: 'failed' });
    expect(await provider.step(failed, WISH, { '1': SERVES }, { ...OPTIONS, undo: true })).toMatchObject({
      type: 'undo',
    });
    expect(sent.map(([, , , patch]) => patch)).toEqual([
      {
        metadata: {
          uid: 'u',
          resourceVersion: '7',
          labels: { 'turn.sluice.dev/sidecar': null },
          annotations: {
            'kruise.io/sidecarset-working-hotupgrade-container': '{"logs":"logs-1","proxy":"proxy-1"}',
            'version.sidecarset.kruise.io/proxy-2': '0',
            'versionalt.sidecarset.kruise.io/proxy-1': '0',
          },
        },
        spec: { containers: [{ name: 'proxy-2', image: EMPTY }] },
      },
    ]);
  });
});

/** A Pod, its kubelet and its agents, beside OpenKruise as its code has it: `findContainerToHotUpgrade`, `flipPodSidecarContainerDo`. */
class World {
  images: [string, string] = [A, EMPTY];
  runs: [string, string] = [A, EMPTY];
  words: [EpochState | undefined, EpochState | undefined] = ['serving', undefined];
  working: '1' | '2' = '1';
  hash = `h-${A}`;
  turn: string | undefined;
  /** Connections of the old epoch are left. */
  holds = true;
  readonly bad: boolean;

  constructor(bad: boolean) {
    this.bad = bad;
  }

  get pod(): V1Pod {
    const stuck = this.runs.findIndex((image, n) => image === B && this.words[n] === undefined && this.bad);
    const { images, working, hash, turn, runs } = this;
    return pod({
      images,
      working,
      hash,
      runs,
      ...(turn && { turn }),
      ...(stuck >= 0 && { stuck: `proxy-${stuck + 1}` }),
    });
  }

  get agents(): AgentWords {
    const [one, two] = this.words.map((state) => state && { epochs: [epoch(state, !this.holds)] });
    return { '1': one, '2': two };
  }

  /** OpenKruise gives the Empty container the new image when its turn has come. */
  upgrade(): void {
    if (this.turn !== '4' || this.hash === `h-${B}`) return;
    const n = this.images.indexOf(EMPTY);
    if (n >= 0 && this.images[1 - n] !== B) {
      this.images[n] = B;
      this.working = n === 0 ? '1' : '2';
    }
    this.hash = `h-${B}`;
  }

  /** OpenKruise makes the one that it does not take for the working one Empty, as soon as the other one is ready. */
  flip(): void {
    const n = Number(this.working) - 1;
    if (this.images[1 - n] === EMPTY || this.runs[n] !== this.images[n]) return;
    if (this.images[n] !== EMPTY && this.words[n] === undefined) return;
    this.images[1 - n] = EMPTY;
  }

  kubelet(): void {
    for (const n of [0, 1] as const) {
      if (this.runs[n] === this.images[n]) {
        // A start that comes to its end: the new one takes over.
        if (this.runs[n] === B && !this.bad && this.words[n] === undefined) {
          this.words[n] = 'serving';
          if (this.words[1 - n] === 'serving') this.words[1 - n] = 'draining';
        }
        continue;
      }
      // preStop: what drains is waited for; what serves is not held.
      if (this.words[n] === 'draining' && this.holds) continue;
      this.runs[n] = this.images[n];
      this.words[n] = undefined;
    }
  }

  take(step: ReturnType<typeof decideKruisePod>): void {
    if (!('patch' in step)) return;
    const { metadata, spec } = step.patch as {
      metadata: V1Pod['metadata'];
      spec?: { containers: { image: string }[] };
    };
    const label = (metadata?.labels as Record<string, string | null> | undefined)?.['turn.sluice.dev/sidecar'];
    if (label !== undefined) this.turn = label ?? undefined;
    const notes = metadata?.annotations ?? {};
    const working = notes['kruise.io/sidecarset-working-hotupgrade-container'];
    if (working !== undefined) this.working = working.endsWith('1"}') ? '1' : '2';
    if (notes['kruise.io/sidecarset-hash'] !== undefined) this.hash = '';
    if (spec !== undefined) this.images[Number(step.change.container.slice(-1)) - 1] = spec.containers[0]?.image ?? '';
  }
}

it('in whatever order OpenKruise, the kubelet and we act, somebody serves, and it comes to its end', () => {
  const set = sidecarSet(B, OURS, { 'sluice.dev/turn': '4' });
  const act = fc.constantFrom('step', 'upgrade', 'flip', 'kubelet', 'drained');
  fc.assert(
    fc.property(fc.array(act, { maxLength: 40 }), fc.boolean(), (acts, bad) => {
      const world = new World(bad);
      let undone = false;
      const once = (what: string) => {
        if (what === 'upgrade') world.upgrade();
        if (what === 'flip') world.flip();
        if (what === 'kubelet') world.kubelet();
        if (what === 'drained') world.holds = false;
        if (what !== 'step') return;
        const step = decideKruisePod(world.pod, set, WISH, world.agents);
        if (step.type === 'failed' && step.undo !== undefined) {
          undone = true;
          world.take(undoOf(world.pod, 'sidecar', WISH, step.undo, step.why));
        } else if (!undone) world.take(step);
      };
      for (const what of [
        ...acts,
        ...Array.from({ length: 6 }, () => ['drained', 'step', 'upgrade', 'kubelet', 'flip', 'kubelet']).flat(),
      ]) {
        once(what);
        expect(world.words).toContain('serving');
      }
      expect(world.images).toEqual(bad ? [A, EMPTY] : [EMPTY, B]);
      expect(world.runs).toEqual(world.images);
    }),
    { numRuns: 1_000 },
  );
});
