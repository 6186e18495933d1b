/** Real Envoys on our xDS server: every kind of resource, both variants of the protocol, refusals and reloads. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, get, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SluiceError } from '@sluice/contract';
import { type ResourceKind, watchResources } from '@sluice/xds-server/resources/index';
import {
  type AckEvent,
  createXdsServer,
  type NackEvent,
  SnapshotCache,
  type XdsServer,
} from '@sluice/xds-server/xds/index';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { certificate, hasEnvoy, socket, startXdsEnvoy, type XdsEnvoy } from './xds-envoy.ts';

const ADMIN = 22001;
const LISTEN = 22002;
const TLS_LISTEN = 22003;
const UPSTREAM = 22004;
const URL = 'type.googleapis.com/';
const HCM = `${URL}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`;
const MUTATION = `${URL}envoy.extensions.filters.http.header_mutation.v3.HeaderMutation`;
const ads = { ads: {}, resource_api_version: 'V3' };

/** A filter that adds a response header: what it adds shows which version of a resource is in force. */
function adds(key: string, value: string): object {
  const append = { header: { key, value }, append_action: 'OVERWRITE_IF_EXISTS_OR_ADD' };
  return { '@type': MUTATION, mutations: { response_mutations: [{ append }] } };
}

function slot(name: string): object {
  return {
    name,
    config_discovery: {
      config_source: ads,
      default_config: { '@type': MUTATION },
      apply_default_config_without_warming: true,
      type_urls: [MUTATION],
    },
  };
}

function hcm(prefix: string): object {
  return {
    name: 'hcm',
    typed_config: {
      '@type': HCM,
      stat_prefix: prefix,
      common_http_protocol_options: { max_connection_duration: '2592000s' },
      http1_safe_max_connection_duration: true,
      rds: { route_config_name: 'routes', config_source: ads },
      http_filters: [
        slot('sluice.drain'),
        slot('user'),
        { name: 'router', typed_config: { '@type': `${URL}envoy.extensions.filters.http.router.v3.Router` } },
      ],
    },
  };
}

const tls = {
  name: 'tls',
  typed_config: {
    '@type': `${URL}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext`,
    common_tls_context: { tls_certificate_sds_secret_configs: [{ name: 'cert', sds_config: ads }] },
  },
};

interface Resource {
  [key: string]: unknown;
}

function typed(message: string, body: object): Resource {
  return { '@type': URL + message, ...body };
}

const listener = (name: string, port: number, more: object = {}): Resource =>
  typed('envoy.config.listener.v3.Listener', {
    name,
    address: socket(port),
    filter_chains: [{ filters: [hcm(name)], ...more }],
  });
const cluster = (name: string, more: object = {}): Resource =>
  typed('envoy.config.cluster.v3.Cluster', {
    name,
    type: 'EDS',
    connectTimeout: '1s',
    eds_cluster_config: { eds_config: ads },
    ...more,
  });
const endpoints = (name: string): Resource =>
  typed('envoy.config.endpoint.v3.ClusterLoadAssignment', {
    cluster_name: name,
    endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(UPSTREAM) } }] }],
  });
const routes = (to: string): Resource =>
  typed('envoy.config.route.v3.RouteConfiguration', {
    name: 'routes',
    virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: to } }] }],
    response_headers_to_add: [{ header: { key: 'x-routed-to', value: to } }],
  });
const filter = (value: string): Resource =>
  typed('envoy.config.core.v3.TypedExtensionConfig', { name: 'user', typed_config: adds('x-user', value) });
const runtime = (value: number): Resource =>
  typed('envoy.service.runtime.v3.Runtime', { name: 'runtime', layer: { 'test.value': value } });

const work = mkdtempSync(join(tmpdir(), 'sluice-xds-'));
const secret = (() => {
  const { cert, key } = certificate(join(work, 'tls'));
  return typed('envoy.extensions.transport_sockets.tls.v3.Secret', {
    name: 'cert',
    tls_certificate: { certificate_chain: { inline_string: cert }, private_key: { inline_string: key } },
  });
})();

function header(path: string, name: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port: LISTEN, path, agent: false, timeout: 5_000 }, (response) => {
      response.resume();
      resolve(`${response.statusCode} ${String(response.headers[name])}`);
    }).on('error', reject);
  });
}

let upstream: Server;
beforeAll(async () => {
  upstream = createServer((_request, response) => response.end('ok'));
  await new Promise<void>((resolve) => upstream.listen(UPSTREAM, '127.0.0.1', resolve));
});
afterAll(() => {
  upstream.close();
  rmSync(work, { recursive: true, force: true });
});

const cases = ['1.40.0', '1.36.4'].flatMap((version) =>
  (['GRPC', 'DELTA_GRPC'] as const).map((api) => ({ version, api })),
);

describe.each(cases)('Envoy $version over $api', ({ version, api }) => {
  const dir = join(work, `${version}-${api}`);
  const folder = join(dir, 'resources');
  const errors: SluiceError[] = [];
  const acks: AckEvent[] = [];
  const nacks: NackEvent[] = [];
  const waiting = new Set<() => void>();
  let server: XdsServer;
  let cache: SnapshotCache;
  let envoy: XdsEnvoy;
  let abort: AbortController;

  /** Resolves once `found` gives something; it is asked after each event. */
  function until<T>(what: string, found: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(look);
        const state = JSON.stringify({ nacks, acks: acks.map(({ kind, names }) => [kind, names]) });
        reject(new Error(`not within 20 s: ${what}; ${state}\n${envoy.log().slice(-4000)}`));
      }, 20_000);
      const look = (): void => {
        const value = found();
        if (value === undefined) return;
        waiting.delete(look);
        clearTimeout(timer);
        resolve(value);
      };
      waiting.add(look);
      look();
    });
  }
  const wake = (): void => {
    for (const look of [...waiting]) look();
  };
  const acked = (kind: ResourceKind, name: string): Promise<AckEvent> =>
    until(`ACK of ${kind} ${name}`, () => acks.find((ack) => ack.kind === kind && ack.names.includes(name)));

  function put(file: string, ...resources: Resource[]): void {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(dir, 'next'), JSON.stringify({ resources }, null, 2));
    renameSync(join(dir, 'next'), join(folder, file));
  }

  beforeEach(async () => {
    rmSync(dir, { recursive: true, force: true });
    for (const list of [errors, acks, nacks]) list.length = 0;
    put('clusters.json', cluster('one'), endpoints('one'));
    put('listeners.json', listener('web', LISTEN), listener('tls', TLS_LISTEN, { transport_socket: tls }), secret);
    put('routes.yaml', routes('one'), filter('1'), runtime(1));
    abort = new AbortController();
    server = createXdsServer({
      log: { info: () => {}, warn: () => {} },
      snapshotFor: (node) => cache.snapshotFor(node),
    });
    cache = new SnapshotCache({ onChange: (proxy, epoch) => server.refresh(proxy, epoch) });
    server.events.on('ack', (event) => {
      acks.push(event);
      wake();
    });
    server.events.on('nack', (event) => {
      nacks.push(event);
      wake();
    });
    await watchResources(folder, {
      signal: abort.signal,
      onSet: (set) => cache.setResources(set),
      onError: (error) => {
        errors.push(error);
        wake();
      },
    });
    const xdsPort = await server.bind('127.0.0.1:0');
    envoy = startXdsEnvoy({ dir, version, xdsPort, adminPort: ADMIN, api, proxy: 'web-1', epoch: 3 });
    await Promise.all([acked('lds', 'web'), acked('rds', 'routes'), acked('ecds', 'user')]);
  });

  afterEach(async () => {
    abort.abort();
    await envoy.stop();
    await server.close();
  });

  it.skipIf(!hasEnvoy(version))('takes every kind, and what only its own version knows', async () => {
    await Promise.all([
      acked('cds', 'one'),
      acked('eds', 'one'),
      acked('sds', 'cert'),
      acked('lds', 'tls'),
      acked('rtds', 'runtime'),
    ]);
    expect(nacks).toEqual([]);
    const config = await envoy.config();
    expect(config).toContain('"http1_safe_max_connection_duration": true');
    expect(await header('/', 'x-user')).toBe('200 1');
    expect(await (await fetch(`${envoy.admin}/runtime`)).text()).toContain('test.value');
    expect(server.nodes()).toMatchObject([{ id: 'web-1', epoch: 3, slot: 'a', userAgentVersion: version }]);
  });

  it.skipIf(!hasEnvoy(version))(
    'moves to a new cluster without a failed request, then removes the old one',
    async () => {
      let stop = false;
      const answers: (string | undefined)[] = [];
      const load = (async () => {
        while (!stop) answers.push(await header('/', 'x-routed-to'));
      })();
      put('clusters.json', cluster('two'), endpoints('two'));
      put('routes.yaml', routes('two'), filter('1'), runtime(1));
      await acked('cds', 'two');
      await until('removal of cluster one', () =>
        server.acked('web-1', 3, 'cds')?.resources.has('one') === false ? true : undefined,
      );
      stop = true;
      await load;
      answers.push(await header('/', 'x-routed-to'));
      expect(new Set(answers.filter((answer) => !answer?.startsWith('200')))).toEqual(new Set());
      expect(answers.at(-1)).toBe('200 two');
      expect(nacks).toEqual([]);
    },
  );

  it.skipIf(!hasEnvoy(version))('warms a cluster that changed while its endpoints did not', async () => {
    const before = acks.filter((ack) => ack.kind === 'eds').length;
    put('clusters.json', cluster('one', { lb_policy: 'LEAST_REQUEST' }), endpoints('one'));
    await until('ACK of its endpoints again', () =>
      acks.filter((ack) => ack.kind === 'eds').length > before ? true : undefined,
    );
    const config = await envoy.config();
    expect(config).toContain('LEAST_REQUEST');
    expect(config).not.toContain('dynamic_warming_clusters');
  });

  it.skipIf(!hasEnvoy(version))('keeps the last good one when it refuses another, and says why', async () => {
    const bad = typed('envoy.config.core.v3.TypedExtensionConfig', {
      name: 'user',
      typed_config: { '@type': MUTATION, mutations: 'not an object' },
    });
    put('routes.yaml', routes('one'), bad, runtime(1));
    const nack = await until('NACK', () => nacks.find((event) => event.kind === 'ecds'));
    expect(nack.message).not.toBe('');
    expect(server.acked('web-1', 3, 'ecds')?.nacked?.names).toEqual(['user']);
    expect(await header('/', 'x-user')).toBe('200 1');
    // The refused one keeps nothing else away.
    cache.setOverlay('web-1', 3, [
      {
        kind: 'ecds',
        name: 'sluice.drain',
        json: { name: 'sluice.drain', typed_config: adds('x-order', '7') as never },
      },
    ]);
    await acked('ecds', 'sluice.drain');
    expect(await header('/', 'x-order')).toBe('200 7');
    put('routes.yaml', routes('one'), filter('2'), runtime(1));
    await until('ACK of the next version', () => {
      const state = server.acked('web-1', 3, 'ecds');
      return state?.nacked === undefined ? state : undefined;
    });
    expect(await header('/', 'x-user')).toBe('200 2');
  });

  it.skipIf(!hasEnvoy(version))('replaces an order by a no-op', async () => {
    const order = (typedConfig: object) => [
      {
        kind: 'ecds' as const,
        name: 'sluice.drain',
        json: { name: 'sluice.drain', typed_config: typedConfig as never },
      },
    ];
    cache.setOverlay('web-1', 3, order(adds('x-order', '1')));
    const first = await acked('ecds', 'sluice.drain');
    expect(await header('/', 'x-order')).toBe('200 1');
    cache.setOverlay('web-1', 3, order({ '@type': MUTATION }));
    await until('ACK of the no-op', () => {
      const now = server.acked('web-1', 3, 'ecds')?.resources.get('sluice.drain');
      return now !== first.resources.get('sluice.drain') ? now : undefined;
    });
    expect(await header('/', 'x-order')).toBe('200 undefined');
  });

  it.skipIf(!hasEnvoy(version))('refuses a bad file by its line and serves on', async () => {
    const broken = { ...listener('web', LISTEN), filter_chain: [] };
    put('listeners.json', broken, listener('tls', TLS_LISTEN, { transport_socket: tls }), secret);
    const error = await until('an error', () => errors[0]);
    expect(error.code).toBe('RESOURCE_INVALID');
    expect(error.message).toMatch(/listeners\.json:\d+: resources\[0\]\.filter_chain: /);
    expect(await header('/', 'x-user')).toBe('200 1');
    expect(nacks).toEqual([]);
    const before = server.acked('web-1', 3, 'ecds')?.resources.get('user');
    put('routes.yaml', routes('one'), filter('3'), runtime(1));
    put('listeners.json', listener('web', LISTEN), listener('tls', TLS_LISTEN, { transport_socket: tls }), secret);
    await until('the put-right folder', () =>
      server.acked('web-1', 3, 'ecds')?.resources.get('user') !== before ? true : undefined,
    );
    expect(await header('/', 'x-user')).toBe('200 3');
  });
});
