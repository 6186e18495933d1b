import { DEFAULT_POLICY, type RolloutMember } from '@sluice/contract';
import { afterEach, expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import { newRollout, type RolloutState } from '../rollout/state.ts';
import type { KubeClient } from './client.ts';
import { type HotUpgrade, rolloutSpecOf } from './hotupgrade.ts';
import type { SidecarSet } from './open-kruise.ts';
import { Providers } from './reconcile-providers.ts';

const [A, B, C] = ['mesh/proxy:a', 'mesh/proxy:b', 'mesh/proxy:c'];
const selector = { matchLabels: { app: 'web' } };
const hup = (image: string): HotUpgrade => ({
  metadata: { name: 'web', namespace: 'shop', uid: 'h' },
  spec: { selector, container: 'proxy', target: { image }, provider: 'OpenKruise', sidecarSet: 'sidecar' },
});
const member = (state: RolloutMember['state'], n: number): RolloutMember => ({
  ...{ name: `web-${n}.shop`, uid: `p${n}`, zone: '', state, since: 1, reason: '', failures: 0, crashes: 0, cut: 0 },
  ...{ upgradeId: `r-${n}`, from: A },
});
const rollout = (image: string, phase: RolloutState['phase'], ...states: RolloutMember['state'][]): RolloutState => ({
  ...newRollout('r', rolloutSpecOf(hup(image), DEFAULT_POLICY), 1),
  phase,
  members: states.map(member),
});

const end = new AbortController();
afterEach(() => end.abort());

/** One SidecarSet, as the API server would keep it. */
function rig(image: string, before: string) {
  const container = {
    name: 'proxy',
    image,
    upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: 'empty:1' },
  };
  let set: SidecarSet = {
    metadata: {
      name: 'sidecar',
      resourceVersion: '1',
      annotations: { 'sluice.dev/turn': '1', 'sluice.dev/image-before': before },
    },
    spec: { namespace: 'shop', selector, containers: [container], updateStrategy: {} },
  };
  /** Each form that the set had for a while. */
  const forms: { image: string | undefined; chosen: boolean; partition: unknown }[] = [];
  const client = {
    get: async () => structuredClone(set),
    patch: async (_: unknown, __: unknown, ___: unknown, change: SidecarSet) => {
      const { selector: chosen, ...strategy } = change.spec?.updateStrategy ?? {};
      set = {
        metadata: {
          ...set.metadata,
          annotations: { ...set.metadata?.annotations, ...change.metadata?.annotations },
        },
        spec: { ...set.spec, ...change.spec, updateStrategy: { ...strategy, ...(chosen && { selector: chosen }) } },
      };
      forms.push({
        image: set.spec?.containers?.[0]?.image,
        chosen: set.spec?.updateStrategy?.selector !== undefined,
        partition: set.spec?.updateStrategy?.partition,
      });
      return structuredClone(set);
    },
    list: async () => ({ items: [], resourceVersion: '1' }),
    watch: (...args: unknown[]) =>
      new Promise<void>((resolve) => (args[4] as AbortSignal).addEventListener('abort', () => resolve())),
  } as unknown as KubeClient;
  const providers = new Providers(client, () => undefined, SILENT, end.signal);
  const prepare = (one: HotUpgrade, state: RolloutState | undefined) =>
    providers.prepare({ hup: one, state, pods: [], signal: end.signal });
  return { forms, prepare };
}

it('OpenKruise never sees the image of another target without the selector of a turn: it would begin Pods by itself', async () => {
  const { forms, prepare } = rig(B, A);
  await prepare(hup(B), rollout(B, 'Done', 'upgraded', 'upgraded'));
  // The target is another one; its rollout is made a moment later.
  await prepare(hup(C), rollout(B, 'Done', 'upgraded', 'upgraded'));
  expect(forms.every(({ image }) => image === B)).toBe(true);
  await prepare(hup(C), rollout(C, 'Progressing', 'waiting', 'waiting'));
  expect(forms.at(-1)).toEqual({ image: C, chosen: true, partition: 0 });
  expect(forms.filter(({ image, chosen }) => image === C && !chosen)).toEqual([]);
});

it('one whose flip back failed leaves the set with the image of before, and who is stuck as he is', async () => {
  const { forms, prepare } = rig(A, B);
  await prepare(hup(B), rollout(B, 'Failed', 'rolledBack', 'rolledBack', 'stuck'));
  expect(forms).toEqual([{ image: A, chosen: false, partition: 1 }]);
});
