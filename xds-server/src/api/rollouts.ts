import {
  API_PREFIX,
  type DrainPolicy,
  METHOD_WISHES,
  parseAnalysis,
  parsePolicy,
  parseSelector,
  parseStrategy,
  ROLLOUT_VERBS,
  type RolloutSpec,
  type WatchItem,
} from '@sluice/contract';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { type Rollouts, rolloutView } from '../rollout/index.ts';
import type { Store } from '../store/store.ts';
import { read } from './read.ts';

export interface RolloutParts {
  readonly rollouts: Pick<Rollouts, 'create' | 'find' | 'event'>;
  readonly store: Store;
  readonly policy: DrainPolicy;
}

/** A watcher gets this many at its start. */
const MAX_ROLLOUTS = 20;

const text = z.string().min(1).max(4_096);
const create = z.strictObject({
  to: text,
  bootstrap: text.optional(),
  method: z.enum(METHOD_WISHES).optional(),
  selector: z.unknown().optional(),
  policy: z.unknown().optional(),
  strategy: z.unknown().optional(),
  analysis: z.unknown().optional(),
});
const byWhom = z.strictObject({ by: text.optional() }).nullish();

/** `/rollouts`: many proxies upgraded one after the other. */
export function rolloutRoutes(api: FastifyInstance, { rollouts, store, policy }: RolloutParts): void {
  api.get('/rollouts', async () => ({ items: (await store.rollouts()).map(({ state }) => rolloutView(state)) }));
  api.post('/rollouts', async ({ body }, reply) => {
    const state = await rollouts.create(specOf(read(create, body), policy));
    reply.code(201).header('location', `${API_PREFIX}/rollouts/${state.id}`);
    return rolloutView(state);
  });
  api.get<ById>('/rollouts/:id', async ({ params: { id } }) =>
    rolloutView(await rollouts.find(id), await store.rolloutRecord(id)),
  );
  for (const verb of ROLLOUT_VERBS) {
    api.post<ById>(`/rollouts/:id/${verb}`, async ({ params: { id }, body }) => {
      const by = read(byWhom, body)?.by ?? 'the API';
      return rolloutView(await rollouts.event(id, { type: verb, by }));
    });
  }
}

export async function* rolloutItems(store: Store): AsyncGenerator<WatchItem> {
  const stored = (await store.rollouts()).slice(0, MAX_ROLLOUTS);
  for (const { state } of stored.reverse()) yield { kind: 'rollout', rollout: rolloutView(state) };
}

function specOf(wish: z.infer<typeof create>, policy: DrainPolicy): RolloutSpec {
  const { to, bootstrap, method } = wish;
  return {
    selector: parseSelector(wish.selector),
    target: { to, ...(bootstrap !== undefined && { bootstrap }), ...(method !== undefined && { method }) },
    policy: parsePolicy(wish.policy, policy),
    strategy: parseStrategy(wish.strategy),
    analysis: parseAnalysis(wish.analysis),
  };
}

interface ById {
  Params: { id: string };
}
