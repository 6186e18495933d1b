import { type Connection, DEFAULT_POLICY, mergePolicy, type PlanNote } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { type PlanFacts, planNotes } from './notes.ts';
import { clusterFacts, listenerFacts, upstreamConnections } from './notes-facts.ts';
import { readAdmin } from './notes-read.ts';

const TYPE = 'type.googleapis.com/envoy.extensions.';
const limit = (kind: string) => `${TYPE}filters.${kind}.local_ratelimit.v3.LocalRateLimit`;

const CLUSTERS = {
  configs: [
    {
      cluster: {
        name: 'up',
        circuit_breakers: { thresholds: [{ max_connections: 100 }, { priority: 'HIGH', max_requests: 7 }] },
        health_checks: [{ interval: '5s' }],
      },
    },
    { cluster: { name: 'plain' } },
  ],
};
const LISTENERS = {
  configs: [
    {
      name: 'in',
      active_state: {
        listener: {
          name: 'in',
          filter_chains: [
            {
              transport_socket: {
                name: 'tls',
                typed_config: { '@type': `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext` },
              },
              filters: [
                {
                  name: 'first',
                  typed_config: { '@type': limit('network'), token_bucket: { max_tokens: 10, fill_interval: '1s' } },
                },
                {
                  name: 'hcm',
                  // As our own controller sends it.
                  typed_config: {
                    '@type': 'type.googleapis.com/xds.type.v3.TypedStruct',
                    type_url: `${TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager`,
                    value: {
                      httpFilters: [
                        {
                          name: 'local',
                          typedConfig: {
                            '@type': limit('http'),
                            tokenBucket: { maxTokens: 50, fillInterval: '60s' },
                          },
                        },
                        { name: 'far', typedConfig: { '@type': `${TYPE}filters.http.ratelimit.v3.RateLimit` } },
                      ],
                    },
                  },
                },
              ],
            },
          ],
        },
      },
    },
  ],
};
const ROUTES = {
  configs: [
    {
      route_config: {
        name: 'routes',
        virtual_hosts: [{ routes: [{ typed_per_filter_config: { local: { '@type': limit('http') } } }] }],
      },
    },
  ],
};

const NOTHING: PlanFacts = { envoy: '1.40.0', lingeringBytes: 0, unread: [] };
const text = (notes: readonly PlanNote[], about: PlanNote['about']) =>
  notes.filter((note) => note.about === about).map((note) => `${note.level}: ${note.text}`);
const connection = (id: string, protocol: Connection['protocol']): Connection => ({
  epoch: 0,
  id,
  peer: '10.0.0.1:1000',
  local: '10.0.0.2:80',
  listener: 'in',
  protocol,
  openedAt: 0,
});

describe('plan notes', () => {
  it('names each circuit breaker that was set, and what it may come to while two epochs live', () => {
    const notes = planNotes({ ...NOTHING, clusters: clusterFacts([CLUSTERS]) }, DEFAULT_POLICY);
    expect(text(notes, 'circuit-breakers')).toEqual([
      'warn: cluster up: max_connections 100 (up to 200 while both live) in each epoch',
      'warn: cluster up (priority high): max_requests 7 (up to 14 while both live) in each epoch',
      expect.stringMatching(/^info: 1 cluster with Envoy's own thresholds/),
    ]);
    expect(text(notes, 'upstream-connections').join()).toContain('twice as many: up');
  });

  it('names local rate limits of listeners and routes, in both forms of a config dump; a global one is unaffected', () => {
    const notes = planNotes({ ...NOTHING, listeners: listenerFacts([LISTENERS, ROUTES]) }, DEFAULT_POLICY);
    expect(text(notes, 'rate-limits')).toEqual([
      'warn: listener in: local rate limit first: 10 connections per 1s in each epoch, so up to 20 while both live',
      'warn: listener in: local rate limit local: 50 requests per 60s in each epoch, so up to 100 while both live',
      'warn: route configuration routes: local rate limit local: counted in each epoch by itself',
      expect.stringMatching(/^info: far: .*counts both epochs together/),
    ]);
    expect(text(notes, 'sessions').join()).toContain('listener in: no session_ticket_keys');
  });

  it.each([
    [{ session_ticket_keys: { keys: [] } }],
    [{ sessionTicketKeysSdsSecretConfig: {} }],
    [{ disable_stateless_session_resumption: true }],
  ])('says nothing of tickets with %j', (field) => {
    const context = { '@type': `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`, ...field };
    const listener = { name: 'tls', filter_chains: [{ transport_socket: { typed_config: context } }] };
    expect(listenerFacts([{ configs: [{ listener }] }]).randomTickets).toEqual([]);
  });

  it('warns that Envoy’s own drain runs beside ours where a listener speaks QUIC', () => {
    const listeners = ['h3', 'edge'].map((name) => ({
      active_state: { listener: { name, udp_listener_config: { quic_options: {} } } },
    }));
    const facts = listenerFacts([LISTENERS, { configs: listeners }, ROUTES]);
    const notes = planNotes({ ...NOTHING, listeners: facts }, DEFAULT_POLICY);
    expect(text(notes, 'drain')).toEqual([
      expect.stringMatching(/^warn: listeners h3, edge over QUIC: .*over TCP too within seconds, whatever the pace/),
    ]);
    expect(text(planNotes({ ...NOTHING, listeners: listenerFacts([LISTENERS]) }, DEFAULT_POLICY), 'drain')).toEqual([]);
  });

  it('names a few and counts the rest', () => {
    const configs = Array.from({ length: 9 }, (_, n) => ({
      cluster: { name: `c${n}`, circuit_breakers: { thresholds: [{ max_requests: n + 1 }] } },
    }));
    const notes = planNotes({ ...NOTHING, clusters: clusterFacts([{ configs }]) }, DEFAULT_POLICY);
    expect(text(notes, 'circuit-breakers')).toHaveLength(6);
    expect(text(notes, 'circuit-breakers')[5]).toContain('and 4 more clusters');
  });

  it('says what a second epoch needs, and warns of a budget that the first one is over already', () => {
    const facts = { ...NOTHING, privateBytes: 60 * 2 ** 20, lingeringBytes: 30 * 2 ** 20 };
    expect(text(planNotes(facts, DEFAULT_POLICY), 'memory')[0]).toMatch(/^info: .*60 MiB.*30 MiB/);
    const policy = mergePolicy(DEFAULT_POLICY, { memory: { budgetMiB: 80 } });
    expect(text(planNotes(facts, policy), 'memory')[0]).toMatch(/^warn: .*hold 80 MiB, and this would be 90 MiB/);
  });

  it('counts the sessions that live on, how long telling takes, and what each rule would hold', () => {
    const policy = mergePolicy(DEFAULT_POLICY, {
      pacing: { perSecond: 10 },
      upgrades: { protect: false },
      rules: [
        { name: 'keep', match: { protocols: ['tcp'] } },
        { name: 'none', match: { peers: ['10.9.0.0/16'] }, nudge: false },
      ],
    });
    const connections = [connection('1', 'upgrade'), connection('2', 'tcp'), connection('3', 'unknown')];
    const notes = planNotes({ ...NOTHING, open: 300, connections }, policy);
    expect(text(notes, 'sessions')[0]).toContain('1 WebSocket or other upgrade and 1 TCP session');
    expect(text(notes, 'sessions')[0]).toContain('waits for 1 of them');
    expect(text(notes, 'drain')).toEqual([
      expect.stringMatching(/^info: 300 open connections .* at 10 a second: the last one after 30 s/),
      'info: of the open connections rule keep holds 1, rule none holds 0, rule default holds 2, as of now',
    ]);
  });

  it('warns that of an Envoy nobody has looked at none is told, and promises no end', () => {
    const drain = { likely: 12_000, late: 40_000, observed: 7 };
    const notes = planNotes({ ...NOTHING, envoy: '1.41.0', open: 3, drain }, DEFAULT_POLICY);
    expect(text(notes, 'drain')).toEqual([
      expect.stringMatching(
        /^warn: nobody has looked at Envoy 1\.41\.0 .*: none of the 3 open connections is told to leave/,
      ),
    ]);
  });

  it('gives an estimate only when ends of earlier drains stand behind it', () => {
    const drain = { likely: 12_000, late: 40_000, observed: 7 };
    expect(text(planNotes({ ...NOTHING, drain }, DEFAULT_POLICY), 'drain').join()).toContain(
      'over in about 12 s, 40 s in nine of ten cases; 7 ends of earlier drains stand behind this',
    );
    expect(planNotes({ ...NOTHING, drain: { ...drain, observed: 0 } }, DEFAULT_POLICY)).toEqual([]);
  });
});

describe('readAdmin', () => {
  const answers = (over: Record<string, string | Error>) => ({
    get: async (path: string) => {
      const found = Object.entries(over).find(([part]) => path.includes(part))?.[1];
      if (found instanceof Error) throw found;
      return found ?? '{}';
    },
  });

  it('reads clusters, listeners and stats', async () => {
    const admin = answers({
      static_clusters: JSON.stringify(CLUSTERS),
      dynamic_listeners: JSON.stringify(LISTENERS),
      static_route_configs: new Error('admin answered 404 to GET'),
      '/stats':
        'cluster.up.upstream_cx_active: 3\ncluster.sluice_agent.upstream_cx_active: 9\ncluster.plain.upstream_cx_active: 1\n',
    });
    const unread: string[] = [];
    const facts = await readAdmin(admin, unread);
    expect(unread).toEqual([]);
    expect(facts.clusters?.total).toBe(2);
    expect(facts.listeners?.limits).toHaveLength(2);
    expect(facts.upstreamConnections).toBe(4);
  });

  it('leaves out what can not be had, and says so', async () => {
    const unread: string[] = [];
    const facts = await readAdmin(answers({ listeners: 'no JSON', '/stats': new Error('admin is silent') }), unread);
    expect(facts.listeners).toBeUndefined();
    expect(facts.clusters?.total).toBe(0);
    expect(unread).toHaveLength(2);
    expect(planNotes({ ...NOTHING, ...facts, unread }, DEFAULT_POLICY)[0]).toMatchObject({ level: 'warn' });
  });

  it('has one bound for all its questions', async () => {
    let clock = 0;
    let asked = 0;
    const slow = {
      get: async () => {
        asked++;
        clock += 6_000;
        return '{}';
      },
    };
    const unread: string[] = [];
    await readAdmin(slow, unread, () => clock);
    expect(asked).toBe(3);
    expect(unread.join()).toContain('took more than 15000 ms');
  });

  it('knows no upstream connections where the stats are left out', () => {
    expect(upstreamConnections('')).toBeUndefined();
  });
});
