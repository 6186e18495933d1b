/**
 * What OpenKruise writes on a Pod, read from its own code (v1.8.0): `pkg/control/sidecarcontrol/util.go` (hashes),
 * `util_hotupgrade.go` (the working container, versions), `sidecarset_control.go` (image ids before a change).
 */
import type { V1Pod } from '@kubernetes/client-node';
import type { Slot } from './provider.ts';

export const HASH = 'kruise.io/sidecarset-hash';
export const HASH_WITHOUT_IMAGE = 'kruise.io/sidecarset-hash-without-image';
const WORKING = 'kruise.io/sidecarset-working-hotupgrade-container';
const INJECTED = 'kruise.io/sidecarset-injected-list';
const CHANGED = 'kruise.io/sidecarset-inplace-update-state';
const version = (container: string) => `version.sidecarset.kruise.io/${container}`;
const versionAlt = (container: string) => `versionalt.sidecarset.kruise.io/${container}`;

export interface KruisePod {
  /** It got the containers of that SidecarSet when it was made. */
  readonly injected: boolean;
  /** Of the SidecarSet that the Pod follows; equal to the set's own: it has had its turn. */
  readonly hash: string;
  readonly hashWithoutImage: string;
  /** The container that OpenKruise takes for the working one; it makes the other one Empty as soon as all the rest is ready. */
  readonly working: string | undefined;
  /** SIDECARSET_VERSION of each slot; of a pair in which no upgrade is under way one is 0. */
  readonly versions: Readonly<Record<Slot, number>>;
  /** Containers whose image OpenKruise has changed and whose kubelet still tells the image id of before. */
  readonly pending: readonly string[];
}

export function readKruise(pod: V1Pod, sidecarSet: string, container: string): KruisePod {
  const annotations = pod.metadata?.annotations ?? {};
  const number = (slot: Slot) => Number(annotations[version(`${container}-${slot}`)]) || 0;
  const state = json(annotations[CHANGED])[sidecarSet] as
    | { lastContainerStatuses?: Record<string, { imageID?: string }> }
    | undefined;
  const ids = new Map(pod.status?.containerStatuses?.map(({ name, imageID }) => [name, imageID]));
  const last = Object.entries(state?.lastContainerStatuses ?? {});
  return {
    injected: (annotations[INJECTED] ?? '').split(',').includes(sidecarSet),
    hash: hashOf(annotations[HASH], sidecarSet),
    hashWithoutImage: hashOf(annotations[HASH_WITHOUT_IMAGE], sidecarSet),
    working: workingContainer(pod, container),
    versions: { '1': number('1'), '2': number('2') },
    pending: last
      .filter(([name, { imageID }]) => imageID !== undefined && ids.get(name) === imageID)
      .map(([name]) => name),
  };
}

/** undefined: OpenKruise does not have that pair. */
export function workingContainer(pod: V1Pod, container: string): string | undefined {
  const working = json(pod.metadata?.annotations?.[WORKING])[container];
  return typeof working === 'string' ? working : undefined;
}

/** Annotations that make OpenKruise see no upgrade under way: `working` serves, `empty` is Empty. */
export function atRest(pod: V1Pod, container: string, working: string, empty: string): Record<string, string> {
  const all = json(pod.metadata?.annotations?.[WORKING]);
  return {
    [WORKING]: JSON.stringify({ ...all, [container]: working }),
    [version(empty)]: '0',
    [versionAlt(working)]: '0',
  };
}

/** Annotations that make OpenKruise take the Pod as one that has not had its turn. */
export function notUpdated(pod: V1Pod, sidecarSet: string): Record<string, string> {
  const all = json(pod.metadata?.annotations?.[HASH]);
  const { [sidecarSet]: of } = all;
  const entry = typeof of === 'object' ? of : {};
  return { [HASH]: JSON.stringify({ ...all, [sidecarSet]: { ...entry, hash: '' } }) };
}

/** Old versions wrote the hash itself in place of an object that has it. */
function hashOf(text: string | undefined, sidecarSet: string): string {
  const entry = json(text)[sidecarSet] as string | { hash?: string } | undefined;
  return (typeof entry === 'string' ? entry : entry?.hash) ?? '';
}

/** What somebody has spoilt by hand says nothing. */
function json(text: string | undefined): Record<string, unknown> {
  try {
    const read: unknown = JSON.parse(text ?? '{}');
    return typeof read === 'object' && read !== null ? (read as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
