import { isDeepStrictEqual } from 'node:util';
import type { KubernetesObject } from '@kubernetes/client-node';
import type { DrainPolicy } from '@sluice/contract';
import type { KubeClient } from './client.ts';
import { type Finding, nextConditions } from './conditions.ts';
import { DRAIN_POLICIES, parsed } from './hotupgrade.ts';
import type { KubeView } from './kube-view.ts';

export interface PolicyParts {
  readonly client: Pick<KubeClient, 'apply'>;
  readonly view: KubeView;
  readonly standard: DrainPolicy;
  readonly fence: number;
  readonly signal: AbortSignal;
}

/** Writes the status of a DrainPolicy: whether the controller takes it. Key: `NAMESPACE/NAME`. Rejects with KubeError. */
export async function judgePolicy({ client, view, standard, fence, signal }: PolicyParts, key: string): Promise<void> {
  const [namespace = '', name = ''] = key.split('/');
  const policy = view.drainPolicy(namespace, name);
  if (policy === undefined) return;
  const { generation = 0 } = policy.metadata ?? {};
  const found = parsed(policy.spec, standard, 'spec');
  const { reason, message } = 'problem' in found ? found.problem : { reason: 'Accepted', message: '' };
  const finding: Finding = { type: 'Accepted', status: 'problem' in found ? 'False' : 'True', reason, message };
  const conditions = nextConditions(policy.status?.conditions ?? [], [finding], generation, new Date());
  const { observedGeneration, conditions: known } = policy.status ?? {};
  if (observedGeneration === generation && isDeepStrictEqual(known, conditions)) return;
  const { apiVersion, kind } = DRAIN_POLICIES;
  const status = { observedGeneration: generation, fence, conditions };
  const written = { apiVersion, kind, metadata: { namespace, name }, status } as KubernetesObject;
  await client.apply(DRAIN_POLICIES, written, { subresource: 'status', signal });
}
