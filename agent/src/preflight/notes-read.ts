import { join } from 'node:path';
import type { Connection, DrainPolicy, HeldConnection, MethodName } from '@sluice/contract';
import { treatmentOf } from '@sluice/contract';
import { costOf } from '../epochs/cost.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { Forecast } from '../epochs/forecast.ts';
import type { EpochRegistry } from '../epochs/registry.ts';
import { readKernel } from '../witnesses/kernel.ts';
import type { PlanFacts } from './notes.ts';
import { clusterFacts, listenerFacts, upstreamConnections } from './notes-facts.ts';

/** A config dump of thousands of clusters takes Envoy's main thread a while. */
const ADMIN_MS = 5_000;
/** All of them together: the answer to the check must not wait for an admin that is slow each time. */
const ADMIN_ALL_MS = 15_000;
/** The filter of an idle worker is heard every 5 s at least, and begins to track then. */
const SNAPSHOT_MS = 6_000;
/** The forecast looks at these many at most: it is a plan, not a drain. */
const MAX_FORECAST = 20_000;

type Admin = Pick<Epoch['admin'], 'get'>;

/** Reads what planNotes stands on. Never throws; every read has a bound, and what failed is said in `unread`. */
export async function readPlanFacts(
  registry: EpochRegistry,
  serving: Epoch,
  subject: { readonly policy: DrainPolicy; readonly method: MethodName | undefined; readonly now: number },
): Promise<PlanFacts> {
  const { policy, method, now } = subject;
  const unread: string[] = [];
  const open = openOf(serving, unread);
  const known = serving.meta.wasm ? serving.table.snapshot(SNAPSHOT_MS, open).catch(() => undefined) : undefined;
  const admin = await readAdmin(serving.admin, unread);
  await known;
  const complete = serving.meta.wasm && serving.table.complete();
  const connections = complete ? serving.table.connections() : undefined;
  const cost = costOf(serving.process.pid, now);
  const lingering = registry.draining().map((one) => costOf(one.process.pid, now)?.privateBytes ?? 0);
  return {
    envoy: serving.meta.version,
    ...admin,
    ...(cost && { privateBytes: cost.privateBytes }),
    lingeringBytes: lingering.reduce((sum, one) => sum + one, 0),
    ...(open !== undefined && { open }),
    ...(connections && { connections, drain: forecast(connections, registry.root, policy, now) }),
    ...(method && { method }),
    unread,
  };
}

/** The admin's part. An answer that can not be had or read leaves its fact out. */
export async function readAdmin(
  admin: Admin,
  unread: string[],
  now: () => number = Date.now,
): Promise<Pick<PlanFacts, 'clusters' | 'listeners' | 'upstreamConnections'>> {
  const until = now() + ADMIN_ALL_MS;
  const get = async (path: string): Promise<string> => {
    const left = until - now();
    if (left <= 0) throw new Error(`not read: the admin took more than ${ADMIN_ALL_MS} ms`);
    return admin.get(path, Math.min(ADMIN_MS, left));
  };
  const clusters = await dumpsOf(get, ['static_clusters', 'dynamic_active_clusters'], unread);
  const listeners = await dumpsOf(
    get,
    ['static_listeners', 'dynamic_listeners', 'static_route_configs', 'dynamic_route_configs'],
    unread,
  );
  const stats = await get(`/stats?filter=${encodeURIComponent('^cluster\\..*upstream_cx_active$')}`).catch(
    (error: unknown) => void unread.push(`stats: ${(error as Error).message}`),
  );
  const upstream = typeof stats === 'string' ? upstreamConnections(stats) : undefined;
  return {
    ...(clusters && { clusters: clusterFacts(clusters) }),
    ...(listeners && { listeners: listenerFacts(listeners) }),
    ...(upstream !== undefined && { upstreamConnections: upstream }),
  };
}

async function dumpsOf(
  get: (path: string) => Promise<string>,
  resources: readonly string[],
  unread: string[],
): Promise<unknown[] | undefined> {
  const dumps: unknown[] = [];
  for (const resource of resources) {
    try {
      dumps.push(JSON.parse(await get(`/config_dump?resource=${resource}`)));
    } catch (error) {
      const { message } = error as Error;
      // "not found" is Envoy's answer where there is none of the kind.
      if (/404|not found/i.test(message)) continue;
      unread.push(`${resource}: ${message}`);
      return undefined;
    }
  }
  return dumps;
}

function openOf(serving: Epoch, unread: string[]): number | undefined {
  try {
    return readKernel(serving.process.pid, serving.meta.listenAddresses ?? []).open;
  } catch (error) {
    unread.push(`kernel: ${(error as Error).message}`);
    return serving.meta.wasm ? serving.table.open() : undefined;
  }
}

/** How long they would take if their drain began now: those told one after the other wait for half of the telling, about. */
function forecast(
  all: readonly Connection[],
  root: string,
  policy: DrainPolicy,
  now: number,
): NonNullable<PlanFacts['drain']> {
  const { perSecond } = policy.pacing;
  const turnMs = perSecond > 0 ? (all.length / perSecond / 2) * 1_000 : 0;
  const held = all.slice(0, MAX_FORECAST).map((connection): HeldConnection => {
    const { rule } = treatmentOf(policy, connection);
    return { connection, protected: true, reason: 'waits-its-turn', holds: false, rule };
  });
  const { estimate } = new Forecast(join(root, 'lifetimes.json'), () => policy).look(held, turnMs, now);
  const { endsAt, endsLate, observed } = estimate;
  return {
    observed,
    ...(endsAt !== undefined && { likely: endsAt - now }),
    ...(endsLate !== undefined && { late: endsLate - now }),
  };
}
