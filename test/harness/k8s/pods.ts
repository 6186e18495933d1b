import type { V1Pod } from '@kubernetes/client-node';
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
