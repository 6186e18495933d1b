import {
  API_PREFIX,
  type CheckView,
  type ConnectionsView,
  countEnded,
  type DrainPolicy,
  type EndedView,
  type ExplainView,
  MAX_OVERRIDE_TEXT,
  METHOD_WISHES,
  type MethodWish,
  type ProxyView,
  parsePolicy,
  SluiceError,
  type UpgradeTarget,
  type WatchItem,
} from '@sluice/contract';
import Fastify, { type FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Driver } from '../drain/driver.ts';
import type { UpgradeState } from '../drain/state.ts';
import type { AgentEntry, Agents } from '../link/agents.ts';
import type { Requests } from '../link/requests.ts';
import { forwardCalls } from '../replicas/forward.ts';
import type { Ownership } from '../replicas/ownership.ts';
import type { Rollouts } from '../rollout/index.ts';
import type { Store } from '../store/store.ts';
import { apiError, statusOf } from './errors.ts';
import type { Hub } from './hub.ts';
import type { Metrics } from './metrics.ts';
import { read } from './read.ts';
import { rolloutItems, rolloutRoutes } from './rollouts.ts';
import { explainItem, upgradeView } from './views.ts';
import { watchRoute } from './watch.ts';

export interface AppParts {
  readonly driver: Driver;
  readonly rollouts: Pick<Rollouts, 'create' | 'find' | 'event'>;
  readonly agents: Agents;
  readonly requests: Requests;
  readonly store: Store;
  readonly hub: Hub;
  readonly metrics: Metrics;
  readonly policy: DrainPolicy;
  readonly ownership: Ownership;
  readonly proxy: (name: string) => ProxyView;
  /** Rejects with the reason while the controller is not ready; else what is wrong without being in the way. */
  readonly ready: () => Promise<readonly string[]>;
  readonly now: () => number;
}

const MAX_BODY_BYTES = 256 * 1024;
const CONNECTIONS_MS = 10_000;
/** A check runs the target's `--mode validate`. */
const CHECK_MS = 60_000;
const MAX_CONNECTIONS = 10_000;
const MAX_UPGRADES = 500;

const text = z.string().min(1).max(4_096);
const method = z.enum(METHOD_WISHES).optional();
const target = z.strictObject({ to: text, bootstrap: text.optional(), method });
const create = target.extend({ proxy: text, policy: z.unknown().optional(), slot: text.optional() });
const checkBody = target.extend({ policy: z.unknown().optional() });
const byWhom = z.strictObject({ by: text.optional() }).nullish();
/** `id`: what the flip back is to be called; asked twice it is one. */
const flipBack = z.strictObject({ by: text.optional(), id: text.max(128).optional() }).nullish();
const overrideText = text.max(MAX_OVERRIDE_TEXT);
const override = z.strictObject({ by: overrideText, reason: overrideText });
const reset = z.strictObject({ override: override.optional() }).nullish();
const connectionsQuery = z.strictObject({
  epoch: z.coerce.number().int().min(0).optional(),
  limit: z.coerce.number().int().min(1).max(MAX_CONNECTIONS).default(1_000),
});

/** The HTTP API. Nothing is listened on yet; `inject()` works on what comes back. */
export function createApp(parts: AppParts): FastifyInstance {
  const { driver, agents, requests, store, metrics, now } = parts;
  const app = Fastify({ bodyLimit: MAX_BODY_BYTES, forceCloseConnections: true, requestTimeout: 30_000 });
  app.setErrorHandler((thrown, _request, reply) => {
    const error = apiError(thrown);
    reply.code(statusOf(error)).send(error.toJSON());
  });
  app.setNotFoundHandler((request, reply) => {
    const error = new SluiceError('INPUT_INVALID', `no such path: ${request.method} ${request.url}`, {
      hint: `the API is under ${API_PREFIX}`,
    });
    reply.code(404).send(error.toJSON());
  });

  app.get('/livez', async () => ({ status: 'ok' }));
  app.get('/readyz', async (_request, reply) => {
    try {
      const warnings = await parts.ready();
      return { status: 'ok', ...(warnings.length === 0 ? {} : { warnings }) };
    } catch (thrown) {
      return reply.code(503).send(apiError(thrown).toJSON());
    }
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );

  app.register(
    async (api) => {
      forwardCalls(api, {
        self: parts.ownership.self,
        elsewhere: (proxy) => parts.ownership.elsewhere(proxy),
        leader: () => parts.ownership.leader(),
        proxyOf: async (id) => (await driver.find(id))?.proxy,
      });
      api.get('/proxies', async () => ({ items: agents.proxies().map(parts.proxy) }));
      api.get<Named>('/proxies/:proxy', async ({ params }) => known(params.proxy));
      api.get<Named>('/proxies/:proxy/connections', async ({ params, query }) => {
        const { epoch, limit } = read(connectionsQuery, query);
        return connections(params.proxy, epoch, limit);
      });
      api.get<Named>('/proxies/:proxy/explain', async ({ params }) => explain(params.proxy));
      api.post<Named>('/proxies/:proxy/check', async ({ params, body }) => check(params.proxy, read(checkBody, body)));

      api.get('/upgrades', async () => {
        const stored = await store.upgrades({ limit: MAX_UPGRADES });
        return { items: stored.map(({ state }) => upgradeView(driver.current(state.id) ?? state)) };
      });
      api.post('/upgrades', async ({ body }, reply) => {
        const wish = read(create, body);
        known(wish.proxy);
        const { proxy, slot } = wish;
        const state = await driver.create({
          proxy,
          target: targetOf(wish),
          policy: parsePolicy(wish.policy, parts.policy),
          slot,
        });
        reply.code(201).header('location', `${API_PREFIX}/upgrades/${state.id}`);
        return upgradeView(state);
      });
      api.get<ById>('/upgrades/:id', async ({ params }) => {
        const state = await find(params.id);
        return upgradeView(state, await store.record(params.id));
      });
      api.get<ById>('/upgrades/:id/connections', async ({ params }): Promise<EndedView> => {
        await find(params.id);
        const { items, dropped } = await store.ended(params.id);
        return { upgradeId: params.id, items, counts: countEnded(items), dropped };
      });
      api.post<ById>('/upgrades/:id/abort', async ({ params, body }) =>
        upgradeView(await driver.verbs.abort(params.id, read(byWhom, body)?.by ?? 'the API')),
      );
      api.post<ById>('/upgrades/:id/rollback', async ({ params, body }) =>
        rollback(params.id, read(flipBack, body) ?? {}),
      );
      api.post<ById>('/upgrades/:id/reset', async ({ params, body }) =>
        resetNow(params.id, read(reset, body)?.override),
      );
      rolloutRoutes(api, parts);
      watchRoute(api, parts.hub, everything);
    },
    { prefix: API_PREFIX },
  );
  return app;

  async function rollback(
    id: string,
    { by = 'the API', id: backId }: { by?: string | undefined; id?: string | undefined },
  ) {
    return upgradeView(await driver.verbs.rollback(id, by, backId));
  }

  function known(proxy: string): ProxyView {
    if (agents.of(proxy).length === 0) agents.require(proxy);
    return parts.proxy(proxy);
  }

  async function find(id: string): Promise<UpgradeState> {
    const state = await driver.find(id);
    if (state === undefined) throw new SluiceError('UPGRADE_UNKNOWN', `expected a known upgrade, found ${id}`);
    return state;
  }

  async function resetNow(id: string, override: { by: string; reason: string } | undefined) {
    const state = await find(id);
    if (override !== undefined) return upgradeView(await driver.verbs.override(id, override.by, override.reason));
    if (state.phase !== 'Draining') return upgradeView(state);
    const { wouldCut, wouldCutTotal = wouldCut.length } = explainItem(state, true, now());
    const cut = wouldCut.slice(0, 5).map(({ connection }) => `${connection.peer} (${connection.protocol})`);
    const more = wouldCutTotal > cut.length ? ` and ${wouldCutTotal - cut.length} more` : '';
    const named = cut.length === 0 ? '' : `; it would cut ${cut.join(', ')}${more}`;
    const count = state.verdict === undefined ? 'an unknown number of' : String(state.verdict.protected);
    throw new SluiceError(
      'RESET_PROTECTED',
      `${count} protected connections are left on epoch ${state.oldEpoch}${named}`,
    );
  }

  async function connections(proxy: string, epoch: number | undefined, limit: number): Promise<ConnectionsView> {
    const asked = agents.require(proxy);
    const answers = await Promise.all(
      asked.map((agent) =>
        ask(agent, CONNECTIONS_MS, 'for its connections', (requestId) => ({
          type: 'connections' as const,
          requestId,
          limit,
          ...(epoch === undefined ? {} : { epoch }),
        })),
      ),
    );
    const lists = answers.filter((answer) => answer.type === 'connections');
    const failed = lists.find((answer) => answer.error !== undefined);
    if (failed?.error !== undefined) throw new SluiceError('INTERNAL', `the agent of ${proxy}: ${failed.error}`);
    const items = lists.flatMap((answer) => answer.connections);
    return {
      proxy,
      items: items.slice(0, limit),
      truncated: items.length > limit || lists.some((answer) => answer.truncated),
    };
  }

  async function check(proxy: string, wish: Wish & { readonly policy?: unknown }): Promise<CheckView> {
    const policy = parsePolicy(wish.policy, parts.policy);
    const there = agents.require(proxy);
    const slot = agents.choose(proxy, wish.to) ?? there[0]?.slot;
    const agent = there.find((one) => one.slot === slot) as AgentEntry;
    const target = targetOf(wish);
    const answer = await ask(agent, CHECK_MS, 'the check', (requestId) => ({
      type: 'check',
      requestId,
      target,
      policy,
    }));
    if (answer.type !== 'checked') throw new SluiceError('INTERNAL', `the agent answered ${answer.type} to a check`);
    return { proxy, ok: answer.ok, checks: answer.checks, ...(answer.notes && { notes: answer.notes }) };
  }

  function ask(
    agent: AgentEntry,
    timeoutMs: number,
    what: string,
    message: (requestId: string) => Parameters<NonNullable<AgentEntry['link']>['send']>[0],
  ) {
    const { link } = agent;
    if (link === undefined) throw new SluiceError('AGENT_AWAY', `the agent of slot ${agent.slot} has gone`);
    return requests.ask(link, timeoutMs, what, (requestId) => link.send(message(requestId)));
  }

  function explain(proxy: string): ExplainView {
    known(proxy);
    const items = driver.active(proxy).map((state) => {
      const slot = state.oldSlot ?? state.slot;
      const there = slot === undefined ? agents.connectedSlots(proxy).size > 0 : agents.connectedSlots(proxy).has(slot);
      return explainItem(state, there, now());
    });
    const serving = agents.serving(proxy);
    const calm = serving === undefined ? 'no epoch serves' : `epoch ${serving.epoch} (${serving.version}) serves`;
    const summary =
      items.length === 0
        ? `${calm}; no upgrade is under way`
        : items.map((one) => `${one.upgradeId} ${one.phase}: ${one.why[0] ?? one.hint}`).join(' ');
    return { proxy, summary, items };
  }

  async function* everything(): AsyncGenerator<WatchItem> {
    for (const proxy of agents.proxies()) yield { kind: 'proxy', proxy: parts.proxy(proxy) };
    const stored = await store.upgrades({ limit: MAX_UPGRADES });
    for (const { state } of stored.slice().reverse()) {
      yield { kind: 'upgrade', upgrade: upgradeView(driver.current(state.id) ?? state) };
    }
    yield* rolloutItems(store);
  }
}

interface Named {
  Params: { proxy: string };
}
interface ById {
  Params: { id: string };
}

interface Wish {
  readonly to: string;
  readonly bootstrap?: string | undefined;
  readonly method?: MethodWish | undefined;
}

/** An upgrade's target without the fields that were not given. */
function targetOf({ to, bootstrap, method }: Wish): UpgradeTarget {
  return { to, ...(bootstrap !== undefined && { bootstrap }), ...(method !== undefined && { method }) };
}
