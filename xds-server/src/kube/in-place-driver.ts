import type { V1Pod } from '@kubernetes/client-node';
import { type KubeClient, PODS } from './client.ts';
import { decidePod, patchOf } from './in-place.ts';
import type { AgentWords, PodStep, Provider, StepOptions, Wish } from './provider.ts';

/** Upgrades Pods by their containers' images alone: no other controller is needed. */
export class InPlaceProvider implements Provider {
  readonly name = 'InPlace';
  readonly #client: Pick<KubeClient, 'patch'>;

  constructor(client: Pick<KubeClient, 'patch'>) {
    this.#client = client;
  }

  decide(pod: V1Pod, wish: Wish, agents: AgentWords): PodStep {
    return decidePod(pod, wish, agents);
  }

  async step(pod: V1Pod, wish: Wish, agents: AgentWords, { begin, undo, signal }: StepOptions): Promise<PodStep> {
    let step = decidePod(pod, wish, agents);
    if (step.type === 'upgrade' && !begin) return { type: 'wait', started: false, why: 'its turn has not come' };
    if (step.type === 'failed' && undo && step.undo !== undefined) {
      step = { type: 'undo', change: step.undo, why: step.why };
    }
    if (step.type !== 'upgrade' && step.type !== 'reset' && step.type !== 'undo') return step;
    const { namespace, name } = pod.metadata ?? {};
    await this.#client.patch(PODS, { namespace, name }, 'strategic', patchOf(pod, step.change), signal);
    return step;
  }
}
