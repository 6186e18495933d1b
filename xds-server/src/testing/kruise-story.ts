import type { V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import type { SidecarSet } from '../kube/open-kruise.ts';
import type { FleetWish, Wish } from '../kube/provider.ts';
import { epochSaid } from './epoch-said.ts';

/** A SidecarSet, its Pods and their agents' words, as the tests of the provider OpenKruise tell of them. */

export const EMPTY = 'mesh/empty:1';
export const A = 'mesh/proxy:a';
export const B = 'mesh/proxy:b';
export const WISH: Wish = { container: 'proxy', emptyImage: EMPTY, image: B };
export const FLEET: FleetWish = {
  namespace: 'shop',
  selector: { matchLabels: { app: 'shop' } },
  container: 'proxy',
  image: B,
  back: false,
  paused: false,
  maxUnavailable: 2,
  until: 'reset',
};

export type Strategy = NonNullable<NonNullable<SidecarSet['spec']>['updateStrategy']>;
export const OURS: Strategy = { selector: { matchLabels: { 'turn.sluice.dev/sidecar': '4' } }, maxUnavailable: 2 };

export function sidecarSet(
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

export const SERVES = { epochs: [epochSaid('serving')] };
export const DRAINS = { epochs: [epochSaid('draining', false)] };

export interface Made {
  readonly images: readonly [string, string];
  readonly working?: '1' | '2';
  readonly hash?: string;
  readonly withoutImage?: string;
  readonly turn?: string;
  readonly runs?: readonly [string, string];
  readonly stuck?: string;
}

/** A Pod as OpenKruise's webhook and its controller write it. */
export function pod({
  images,
  working = '1',
  hash = `h-${A}`,
  withoutImage = 'h',
  turn,
  runs = images,
  stuck,
}: Made): V1Pod {
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
