import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type AgentMessage,
  type DrainPolicy,
  type EpochStatus,
  type ProxyView,
  type RolloutEntry,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import { createApp } from './api/app.ts';
import { Hub } from './api/hub.ts';
import { Metrics } from './api/metrics.ts';
import { proxyView, upgradeView } from './api/views.ts';
import { xdsViewOf } from './api/xds-view.ts';
import type { ResolvedConfig } from './config.ts';
import { Driver } from './drain/driver.ts';
import { hear } from './drain/hear.ts';
import { untilThere } from './drain/persist.ts';
import { propose } from './drain/propose.ts';
import { ORDER_SLOTS, presetTransform, withIdleOrder, XdsOrders } from './drain/xds-orders.ts';
import { type KubeAccess, KubeController, type KubernetesConfig } from './kube/kube-controller.ts';
import { endWithPods } from './kube/pods-gone.ts';
import { notLeading } from './kube/reconcile.ts';
import { Agents } from './link/agents.ts';
import { Requests } from './link/requests.ts';
import { type AgentLink, LinkServer } from './link/server.ts';
import { tokenCheck } from './link/tokens.ts';
import type { Log } from './log.ts';
import { followStore } from './replicas/follow.ts';
import type { Membership } from './replicas/membership.ts';
import { Ownership } from './replicas/ownership.ts';
import { PlainRollouts } from './replicas/plain-rollouts.ts';
import { XdsRelay } from './replicas/relay.ts';
import { othersOf } from './replicas/remote.ts';
import { watchResources } from './resources/index.ts';
import { PlainFleet, PrometheusSource, Rollouts, rolloutView } from './rollout/index.ts';
import type { RolloutState } from './rollout/state.ts';
import type { Store } from './store/store.ts';
import { CONTROLLER_VERSION } from './version.ts';
import { createXdsServer, SnapshotCache } from './xds/index.ts';

export interface Controller {
  readonly apiPort: number;
  readonly xdsPort: number;
  /** Ends it within CLOSE_MS; upgrades under way go on with the next controller. */
  close(): Promise<void>;
}

/** What a controller has that is not alone, or that lives in Kubernetes. */
export interface ControllerParts {
  readonly kube?:
    | {
        readonly config: KubernetesConfig;
        readonly access: KubeAccess;
        /** Told the term of this leader: writes of the state carry it. */
        readonly fenced?: ((fence: () => number | undefined) => void) | undefined;
      }
    | undefined;
  readonly membership?: Membership | undefined;
  /** How the other replicas and their agents reach this one, once it listens. */
  readonly addresses?:
    | ((apiPort: number, xdsPort: number) => { readonly api: string; readonly xds: string })
    | undefined;
}

const START_MS = 120_000;
const CLOSE_MS = 5_000;
const LEAVE_MS = 2_000;
const XDS_GRACE_MS = 1_000;
const LIST_MS = 10_000;

/** Wires the parts and opens the ports. Throws what kept it from starting, with nothing left open. */
export async function openController(
  config: ResolvedConfig,
  store: Store,
  log: Log,
  { membership, addresses, kube: place }: ControllerParts = {},
): Promise<Controller> {
  const stop = new AbortController();
  const ownership = new Ownership(membership);
  const elsewhere = (proxy: string) => ownership.elsewhere(proxy);
  const agents = new Agents();
  const requests = new Requests();
  const hub = new Hub();
  let resourceError: SluiceError | undefined;

  const cache: SnapshotCache = new SnapshotCache({
    transform: presetTransform,
    onChange: (proxy, epoch) => xds.refresh(proxy, epoch),
    withheld: () => (driver.takesUp ? ORDER_SLOTS : undefined),
  });
  const xds = createXdsServer({
    log,
    snapshotFor: (node) => cache.snapshotFor(node),
    passOn: (call, first, node) => relay.take(call, first, node.id),
  });
  const relay = new XdsRelay({ self: ownership.self ?? '', elsewhere, log });
  const orders = new XdsOrders(cache, xds, log);
  const proxyOf = (proxy: string): ProxyView =>
    proxyView(proxy, agents, driver.active(proxy), xdsViewOf(xds, proxy), ownership);
  const showProxy = (proxy: string): void => {
    hub.publish({ kind: 'proxy', proxy: proxyOf(proxy) });
    kube?.changed(proxy);
  };
  const driver: Driver = new Driver({
    store,
    agents,
    orders,
    log,
    policy: (proxy) => policyOf(proxy),
    owns: (proxy) => ownership.owns(proxy),
    onUpgrade: (state) => {
      hub.publish({ kind: 'upgrade', upgrade: upgradeView(state) });
      rollouts.changed();
      kube?.changed(state.proxy);
    },
    onRecord: (record, state) => {
      metrics.record(record, state);
      hub.publish({ kind: 'record', record });
    },
  });
  const fleet = new PlainFleet(driver, agents, othersOf(ownership, agents));
  const source = config.prometheus === undefined ? undefined : new PrometheusSource(config.prometheus);
  const shown = {
    onRollout: (state: RolloutState) => hub.publish({ kind: 'rollout', rollout: rolloutView(state) }),
    onEntry: (entry: RolloutEntry) => hub.publish({ kind: 'rolloutRecord', entry }),
  };
  const makeRollouts = () =>
    new Rollouts({
      store,
      fleet,
      log,
      ...(source !== undefined && { metrics: source }),
      own: ({ pods }) => pods === undefined,
      ...shown,
    });
  const rollouts: PlainRollouts = new PlainRollouts({ make: makeRollouts, log, elsewhere: notLeading });
  const kube =
    place &&
    new KubeController({
      ...place,
      store,
      agents,
      verdict: (proxy, epoch) => driver.active(proxy).find((one) => one.oldEpoch === epoch)?.verdict,
      isLive: (replica) => ownership.isLive(replica),
      standard: config.policy,
      metrics: source,
      log,
      onGone: (proxy) => {
        agents.forget(proxy);
        driver.forget(proxy);
      },
      onLead: ({ fence, signal }) => {
        if (membership === undefined) return;
        membership.leads(fence);
        signal.addEventListener('abort', () => membership.leads(undefined), { once: true });
        rollouts.lead(signal);
      },
      onInjection: (result) => metrics.count('sluice_injections_total', { result }),
      ...shown,
    });
  place?.fenced?.(() => kube?.fence);
  const policyOf = (proxy: string): DrainPolicy => kube?.view.policyOf(proxy) ?? config.policy;
  /** Those of HotUpgrades are the leader's. */
  const desk: Pick<Rollouts, 'create' | 'find' | 'event'> = {
    create: async (spec) => rollouts.require().create(spec),
    find: (id) => (kube?.rollouts ?? rollouts.here ?? makeRollouts()).find(id),
    event: async (id, event) => {
      const { spec } = await desk.find(id);
      const own = spec.pods === undefined ? rollouts.here : kube?.rollouts;
      if (own === undefined) throw notLeading();
      return own.event(id, event);
    },
  };
  const metrics = new Metrics({
    version: CONTROLLER_VERSION,
    agents,
    active: () => driver.active(),
    owns: (proxy) => ownership.owns(proxy),
    xdsStreams: () => xds.stats.streams,
  });

  /** A push is answered by type and by stream: one item tells of all that came in one turn of the loop. */
  const answered = new Set<string>();
  const showAnswers = (proxy: string): void => {
    if (agents.of(proxy).length === 0 || answered.has(proxy)) return;
    answered.add(proxy);
    setImmediate(() => {
      answered.delete(proxy);
      if (!stop.signal.aborted) showProxy(proxy);
    });
  };

  xds.events.on('ack', (event) => {
    showAnswers(event.proxy);
    const order = orders.orderOf(event);
    if (order !== undefined) driver.orderAcked(event.proxy, event.epoch, order);
    if (event.kind === 'lds') {
      const slot = agents.slotOf(event.proxy, event.epoch);
      if (slot !== undefined) agents.send(event.proxy, slot, { type: 'listenersChanged', epoch: event.epoch });
    }
  });
  xds.events.on('nack', (event) => {
    metrics.count('sluice_xds_nacks_total', { type: event.kind });
    const order = orders.orderOf(event);
    if (order !== undefined) driver.orderAcked(event.proxy, event.epoch, order, event.message);
    showAnswers(event.proxy);
  });

  const guarded = (what: string, work: Promise<unknown>): void => {
    work.catch((thrown) => log.error({ err: toSluiceError(thrown) }, `${what} failed`));
  };
  const remember = (link: AgentLink): void => {
    const entry = agents.entry(link.proxy, link.slot);
    if (entry === undefined) return;
    const { proxy, slot, agentVersion, versions, labels } = entry;
    const epochs = entry.epochs.map(({ verdict: _, ...epoch }): EpochStatus => epoch);
    guarded(
      'remembering the agent',
      store.putAgent({
        proxy,
        slot,
        agentVersion,
        versions,
        epochs,
        seenAt: Date.now(),
        ...(labels && { labels }),
        ...(entry.link !== undefined && ownership.self !== undefined && { replica: ownership.self }),
      }),
    );
  };
  const onMessage = (link: AgentLink, message: AgentMessage): void => {
    const { proxy, slot } = link;
    switch (message.type) {
      case 'connections':
      case 'checked':
        requests.answer(message);
        return;
      case 'propose': {
        const { target, reason } = message;
        const policy = policyOf(proxy);
        guarded('a proposal', propose(driver, { proxy, target, policy, slot, reason }, log, stop.signal));
        return;
      }
      case 'crashed':
        log.warn({ proxy, slot, epoch: message.epoch, relaunchedAs: message.relaunchedAs }, 'an Envoy crashed');
        guarded('a crash', rollouts.crashed(proxy, message.epoch, driver));
        kube?.crashed(proxy, slot);
        return;
      case 'epochs': {
        const entry = agents.entry(proxy, slot);
        if (entry?.link !== link) return;
        entry.epochs = message.epochs;
        remember(link);
        showProxy(proxy);
        rollouts.changed();
        break;
      }
      default:
        break;
    }
    guarded('an agent message', hear({ driver, store }, proxy, slot, message));
  };

  const app = createApp({
    driver,
    rollouts: desk,
    agents,
    requests,
    store,
    hub,
    metrics,
    policy: config.policy,
    ownership,
    proxy: proxyOf,
    now: Date.now,
    ready: async () => {
      if (stop.signal.aborted) throw new SluiceError('CONTROLLER_AWAY', 'the controller closes');
      await store.ping();
      const resources =
        resourceError === undefined ? [] : [`resources: ${resourceError.message}; the last good set is served`];
      return [...resources, ...(kube?.troubles ?? [])];
    },
  });
  const links = new LinkServer(app.server, {
    checkToken: tokenCheck(config.tokens),
    elsewhere: (proxy) => elsewhere(proxy)?.api,
    log,
    handlers: {
      connected: (link) => {
        agents.connected(link);
        metrics.count('sluice_agent_link_events_total', { event: 'connected' });
        remember(link);
        showProxy(link.proxy);
        guarded('an agent’s hello', driver.epochsChanged(link.proxy, link.slot, true));
        rollouts.changed();
      },
      message: onMessage,
      gone: (link) => {
        agents.gone(link, Date.now());
        if (membership !== undefined) remember(link);
        requests.lost(link);
        metrics.count('sluice_agent_link_events_total', { event: 'gone' });
        driver.agentGone(link.proxy);
        rollouts.changed();
        showProxy(link.proxy);
      },
    },
  });

  /** Who lives changed: what belongs to another replica now goes there, what is ours from now on is taken up. */
  function rebalance(): void {
    if (stop.signal.aborted) return;
    relay.moved();
    xds.end((node) => !ownership.owns(node.id));
    const taken = driver.rebalance().finally(() => xds.refresh());
    guarded('taking up upgrades', taken);
    links.moveAll();
  }

  const close = async (): Promise<void> => {
    if (stop.signal.aborted) return;
    stop.abort();
    // Announced before the links end, so that the agents are sent to whom they belong to from then on.
    if (membership !== undefined) await Promise.race([membership.leave(), delay(LEAVE_MS, undefined, { ref: false })]);
    const late = setTimeout(() => log.warn({}, `not closed within ${CLOSE_MS} ms`), CLOSE_MS);
    links.close();
    relay.close();
    await Promise.race([
      Promise.allSettled([app.close(), xds.close(XDS_GRACE_MS), rollouts.close(), driver.close(), kube?.ended()]),
      new Promise((resolve) => setTimeout(resolve, CLOSE_MS).unref()),
    ]);
    clearTimeout(late);
    await store.close();
  };

  try {
    cache.setResources(withIdleOrder());
    if (config.resources !== undefined) {
      await watchResources(config.resources, {
        signal: stop.signal,
        onSet: (set) => {
          resourceError = undefined;
          metrics.count('sluice_resource_loads_total', { result: 'ok' });
          log.info({ count: set.count }, 'resources loaded');
          cache.setResources(withIdleOrder(set));
        },
        onError: (error) => {
          metrics.count('sluice_resource_loads_total', { result: 'refused' });
          if (resourceError?.message !== error.message)
            log.error({ err: error }, 'resources refused; the last good set is served');
          resourceError = error;
        },
      });
    }
    // A state that is away is waited for: whoever started this controller could only start it again.
    const limit = AbortSignal.any([stop.signal, AbortSignal.timeout(START_MS)]);
    const there = <T>(ask: () => Promise<T>): Promise<T> => untilThere(ask, log, limit);
    for (const row of await there(() => store.agents())) agents.restore(row);
    membership?.onChange(rebalance, stop.signal);
    await there(() => driver.start());
    if (membership !== undefined) {
      const changed = () => rollouts.changed();
      followStore({ store, ownership, agents, driver, hub, showProxy, changed, log }, stop.signal);
    }
    // Of several replicas the leader does, once it leads.
    if (membership === undefined) await there(() => rollouts.start(stop.signal));
    kube?.start(stop.signal);
    if (kube !== undefined) void endWithPods(driver, kube.view);
    // An agent that is heard before has its drain by the controller's policy and not by its HotUpgrade's.
    await kube?.listed(LIST_MS);
    const xdsPort = await xds.bind(config.xdsAddress);
    await app.listen(config.api).catch((cause) => {
      const { host, port } = config.api;
      throw new SluiceError(
        'CONFIG_INVALID',
        `apiAddress: expected a free address, found ${host}:${port}: ${cause.message}`,
        {
          cause,
        },
      );
    });
    const apiPort = (app.server.address() as AddressInfo).port;
    if (membership !== undefined) {
      const { api, xds: xdsAddress } = addresses?.(apiPort, xdsPort) ?? loopback(apiPort, xdsPort);
      await membership.join({ id: membership.self, api, xds: xdsAddress }, stop.signal);
    }
    log.info({ apiPort, xdsPort, version: CONTROLLER_VERSION }, 'controller serves');
    return { apiPort, xdsPort, close };
  } catch (thrown) {
    await close();
    throw toSluiceError(thrown);
  }
}

function loopback(apiPort: number, xdsPort: number) {
  return { api: `http://127.0.0.1:${apiPort}`, xds: `127.0.0.1:${xdsPort}` };
}
