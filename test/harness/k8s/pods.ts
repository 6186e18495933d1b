import type { V1Pod } from '@kubernetes/client-node';
import type { WatchEvent } from './client.ts';
import type { Cluster } from './cluster.ts';

/** Waits until that Pod is Ready. @throws Error with its last state */
export function podReady(cluster: Cluster, name: string, namespace = 'default', limitMs = 60_000): Promise<V1Pod> {
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const ready = (pod: V1Pod) =>
    pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ? pod : undefined;
  return cluster.client.watch<V1Pod, V1Pod>(
    path,
    ({ type, object }) => (type === 'DELETED' ? undefined : ready(object)),
    {
      limitMs,
      fieldSelector: `metadata.name=${name}`,
    },
  );
}

export interface Readiness {
  /** Each time that the Pod was not Ready: when it began, since `watchReadiness` was called, and how long it lasted, in ms. */
  readonly gaps: readonly { readonly at: number; readonly ms: number; readonly containers: readonly string[] }[];
}

/**
 * Sees a Pod become Ready and not, by the API server's events as they arrive: a condition's own time has whole seconds only.
 * `containers` of a gap are those that were not ready when it began.
 */
export function watchReadiness(cluster: Cluster, name: string, namespace = 'default'): { stop(): Readiness } {
  const begun = performance.now();
  const gaps: { at: number; ms: number; containers: string[] }[] = [];
  let lost: { at: number; containers: string[] } | undefined;
  const end = () => {
    if (lost !== undefined) gaps.push({ ...lost, ms: Math.round(performance.now() - begun) - lost.at });
    lost = undefined;
  };
  const seen = ({ object: pod }: WatchEvent<V1Pod>) => {
    const ready = pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
    if (ready) end();
    else {
      const containers = pod.status?.containerStatuses?.filter((one) => !one.ready).map((one) => one.name) ?? [];
      lost ??= { at: Math.round(performance.now() - begun), containers };
    }
  };
  const path = `/api/v1/namespaces/${namespace}/pods`;
  const fieldSelector = `metadata.name=${name}`;
  const stop = cluster.client.events<V1Pod>(path, seen, { fieldSelector });
  return {
    stop() {
      stop();
      end();
      return { gaps };
    },
  };
}
