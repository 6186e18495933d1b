import type { V1Pod } from '@kubernetes/client-node';
import { ApiError } from '../k8s/client.ts';
import type { Cluster } from '../k8s/cluster.ts';

/** Stands for the scheduler, which the test's cluster has none of: each Pod goes to the next of the nodes. */
export function bindPods(
  cluster: Cluster,
  nodes: readonly string[],
): { stop(): void; readonly errors: readonly Error[] } {
  const errors: Error[] = [];
  const seen = new Set<string>();
  const bind = async ({ metadata }: V1Pod) => {
    const { namespace = '', name = '' } = metadata ?? {};
    const target = { apiVersion: 'v1', kind: 'Node', name: nodes[seen.size % nodes.length] ?? '' };
    try {
      await cluster.client.core.createNamespacedPodBinding({ namespace, name, body: { metadata: { name }, target } });
    } catch (error) {
      const code = (error as { code?: number }).code;
      // Gone again, or bound already.
      if (code !== 404 && code !== 409 && !(error instanceof ApiError)) errors.push(error as Error);
    }
  };
  const stop = cluster.client.events<V1Pod>('/api/v1/pods', ({ type, object }) => {
    const { uid = '' } = object.metadata ?? {};
    if (type === 'DELETED' || object.spec?.nodeName !== undefined || seen.has(uid)) return;
    seen.add(uid);
    void bind(object);
  });
  return { stop, errors };
}
