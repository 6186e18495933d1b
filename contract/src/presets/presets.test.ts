import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import type { Json, PresetEnvironment } from './environment.ts';
import {
  ageCutoffOf,
  leaveSlot,
  OWN_DRAIN_GUARDS,
  orderSource,
  ownDrainGuards,
  withBootstrapPresets,
  withListenerPresets,
} from './index.ts';

const TESTDATA = join(import.meta.dirname, 'testdata');

const env: PresetEnvironment = {
  proxy: 'edge-1',
  epoch: 7,
  slot: 'a',
  guards: OWN_DRAIN_GUARDS,
  wasmPath: '/opt/sluice.wasm',
  pressureFile: '/run/sluice/epochs/7/pressure',
  adminPipe: '/run/sluice/epochs/7/admin.sock',
  agentSocket: '/run/sluice/agent.sock',
  orderFile: '/run/sluice/epochs/7/order.json',
  leave: true,
  leaveFile: '/run/sluice/epochs/7/leave.json',
  controller: { address: '127.0.0.1', port: 18000 },
};

describe('golden bootstraps', () => {
  // A changed expectation: remove the .out.yaml, run again, read the difference.
  for (const name of readdirSync(TESTDATA).filter((f) => f.endsWith('.in.yaml'))) {
    it(`${name} becomes its .out.yaml`, () => {
      const { value, warnings } = withBootstrapPresets(parse(readFileSync(join(TESTDATA, name), 'utf8')), env);
      const file = join(TESTDATA, name.replace('.in.', '.out.'));
      const actual = { warnings, bootstrap: value };
      if (!existsSync(file)) writeFileSync(file, stringify(actual, { lineWidth: 120, aliasDuplicateObjects: false }));
      expect(actual).toEqual(parse(readFileSync(file, 'utf8')));
    });
  }
});

const HCM = 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';
const router = { name: 'router', typed_config: { '@type': 'x/envoy.extensions.filters.http.router.v3.Router' } };

const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

function present(object: Record<string, unknown>): Json {
  return Object.fromEntries(Object.entries(object).filter(([, v]) => v !== undefined));
}

const camelKeys = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(camelKeys);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([k, v]) => [k.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase()), camelKeys(v)]),
  );
};

const hcm = fc
  .record({
    duration: maybe(fc.constantFrom('60s', '604800s', null)),
    safe: maybe(fc.boolean()),
    upgrades: maybe(fc.uniqueArray(fc.constantFrom('websocket', 'CONNECT'))),
    ownFilters: fc.boolean(),
    routeUpgrade: fc.boolean(),
    filters: fc.constantFrom(0, 1, 2),
    wrapped: fc.boolean(),
  })
  .map((p) => {
    const message = present({
      stat_prefix: 'in',
      common_http_protocol_options: p.duration === undefined ? undefined : { max_connection_duration: p.duration },
      http1_safe_max_connection_duration: p.safe,
      upgrade_configs: p.upgrades?.map((t) => ({ upgrade_type: t, ...(p.ownFilters && { filters: [router] }) })),
      route_config: p.routeUpgrade
        ? {
            virtual_hosts: [
              { routes: [{ route: { cluster: 'c', upgrade_configs: [{ upgrade_type: 'websocket' }] } }] },
            ],
          }
        : undefined,
      http_filters: [{ name: 'first' }, router].slice(2 - p.filters),
    });
    return {
      name: 'hcm',
      typed_config: p.wrapped
        ? { '@type': 'type.googleapis.com/xds.type.v3.TypedStruct', type_url: HCM, value: message }
        : { '@type': HCM, ...message },
    };
  });

const chain = fc.array(fc.oneof(hcm, fc.constant({ name: 'tcp', typed_config: { '@type': 'x/TcpProxy' } })), {
  maxLength: 2,
});

const listener = fc
  .record({
    name: maybe(fc.constantFrom('', 'web', 'raw')),
    chains: maybe(fc.array(chain, { maxLength: 2 })),
    fallback: maybe(chain),
    kind: fc.constantFrom('tcp', 'udp', 'internal'),
  })
  .map((p) =>
    present({
      name: p.name,
      filter_chains: p.chains?.map((filters) => ({ filters })),
      default_filter_chain: p.fallback && { filters: p.fallback },
      udp_listener_config: p.kind === 'udp' ? {} : undefined,
      internal_listener: p.kind === 'internal' ? {} : undefined,
    }),
  );

const bootstrap = fc
  .record({
    listeners: maybe(fc.array(listener, { maxLength: 3 })),
    node: maybe(fc.constantFrom({}, { id: 'own' }, { id: 'edge-1', metadata: { A: 1 } })),
    admin: maybe(fc.constantFrom({}, { address: { pipe: { path: '/a' } } })),
    runtime: maybe(fc.constantFrom({}, { layers: [{ name: 'mine', static_layer: { a: 1 } }] })),
    overload: maybe(
      fc.constantFrom(
        {},
        { refresh_interval: '0.02s' },
        { actions: [{ name: 'envoy.overload_actions.reduce_timeouts', triggers: [{ name: 't' }] }] },
      ),
    ),
    dynamic: maybe(fc.constantFrom({}, { ads_config: { api_type: 'GRPC' } }, { lds_config: { path: '/l' } })),
    stats: maybe(fc.constantFrom({}, { stats_matcher: { inclusion_list: { patterns: [{ prefix: 'a' }] } } })),
  })
  .map((p) =>
    present({
      static_resources: p.listeners && { listeners: p.listeners },
      node: p.node,
      admin: p.admin,
      layered_runtime: p.runtime,
      overload_manager: p.overload,
      dynamic_resources: p.dynamic,
      stats_config: p.stats,
    }),
  );

const environments = fc
  .record({
    wasm: fc.boolean(),
    controller: fc.boolean(),
    leave: fc.boolean(),
    version: fc.constantFrom('1.36.4', '1.39.3', '1.40.0', '2.0.0'),
  })
  .map((p): PresetEnvironment => {
    const { wasmPath, controller, ...rest } = env;
    return {
      ...rest,
      guards: ownDrainGuards(p.version) ?? OWN_DRAIN_GUARDS.slice(0, 1),
      leave: p.leave,
      ...(p.wasm && { wasmPath: wasmPath as string }),
      ...(p.controller && { controller: controller as { address: string; port: number } }),
    };
  });

describe('withBootstrapPresets', () => {
  it('changes nothing when applied again', () => {
    fc.assert(
      fc.property(bootstrap, environments, fc.boolean(), (b, e, camel) => {
        const once = withBootstrapPresets((camel ? camelKeys(b) : b) as Json, e).value;
        expect(withBootstrapPresets(once, e).value).toEqual(once);
      }),
    );
  });

  it('never changes what it was given', () => {
    fc.assert(
      fc.property(bootstrap, environments, (b, e) => {
        const before = structuredClone(b);
        withBootstrapPresets(b, e);
        expect(b).toEqual(before);
      }),
    );
  });

  it('never spells one field twice', () => {
    const twice = (value: unknown): string[] => {
      if (Array.isArray(value)) return value.flatMap(twice);
      if (typeof value !== 'object' || value === null) return [];
      const names = Object.keys(value).map((k) => k.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase()));
      return [...names.filter((n, i) => names.indexOf(n) !== i), ...Object.values(value).flatMap(twice)];
    };
    fc.assert(
      fc.property(bootstrap, environments, (b, e) => {
        expect(twice(withBootstrapPresets(camelKeys(b) as Json, e).value)).toEqual([]);
      }),
    );
  });

  it('names the runtime guards only to an Envoy that has it', () => {
    const of = (guards: readonly string[]) => JSON.stringify(withBootstrapPresets({}, { ...env, guards }).value);
    const names = ['use_connection_event_drain', 'non_graceful_drain_notifies_connections'];
    for (const name of names) {
      expect(of(ownDrainGuards('1.39.3') ?? [])).not.toContain(name);
      expect(of(ownDrainGuards('1.40.7') ?? [])).toContain(name);
    }
    expect(names.map((name) => of([`envoy.reloadable_features.${names[1]}`]).includes(name))).toEqual([false, true]);
  });

  it('guesses the guards of no version that nobody has looked at', () => {
    expect(['1.35.9', '1.41.0', '2.0.0', ''].map(ownDrainGuards)).toEqual(Array(4).fill(undefined));
  });

  it('gives a QUIC listener the duration and no filter', () => {
    const chains = [{ filters: [{ name: 'hcm', typed_config: { '@type': HCM, http_filters: [router] } }] }];
    const listener = { name: 'h3', udp_listener_config: { quic_options: {} }, filter_chains: chains };
    const { value } = withListenerPresets(listener, env);
    const common = { common_http_protocol_options: { max_connection_duration: '604800s' } };
    const hcm = { '@type': HCM, http_filters: [router], ...common, http1_safe_max_connection_duration: true };
    expect(value.filter_chains).toEqual([{ filters: [{ name: 'hcm', typed_config: hcm }] }]);
  });

  it('puts no filter into an Envoy that can not run one', () => {
    const { wasmPath: _, ...without } = env;
    const { value } = withBootstrapPresets(parse(readFileSync(join(TESTDATA, 'plain.in.yaml'), 'utf8')), without);
    expect(JSON.stringify(value)).not.toContain('envoy.wasm.runtime');
  });
});

describe('orderSource', () => {
  const { controller: _, ...alone } = env;
  it('is our ADS where the user has none', () => expect(orderSource({}, env)).toBe('ads'));
  it('is a stream of its own beside an ADS of the user', () =>
    expect(orderSource({ dynamicResources: { adsConfig: {} } }, env)).toBe('own'));
  it('is a file where there is no controller', () => expect(orderSource({}, alone)).toBe('file'));
});

describe('withListenerPresets', () => {
  it('changes nothing when applied again, from whatever source the order comes', () => {
    fc.assert(
      fc.property(
        listener,
        environments,
        fc.constantFrom('ads', 'own', 'file'),
        fc.boolean(),
        (l, e, source, camel) => {
          const once = withListenerPresets((camel ? camelKeys(l) : l) as Json, e, source).value;
          expect(withListenerPresets(once, e, source)).toMatchObject({ value: once });
        },
      ),
    );
  });

  it('gives every chain with filters the connection filter first, and each manager the two slots', () => {
    fc.assert(
      fc.property(listener, (l) => {
        fc.pre(l.udp_listener_config === undefined && l.internal_listener === undefined);
        const { value } = withListenerPresets(l, env);
        const chains = [
          ...((value.filter_chains as Json[]) ?? []),
          ...(value.default_filter_chain ? [value.default_filter_chain as Json] : []),
        ];
        for (const { filters } of chains as { filters: { name: string; typed_config: Json }[] }[]) {
          if (filters.length === 0) continue;
          expect(filters[0]?.name).toBe('sluice.connection');
          for (const f of filters.filter((f) => f.name === 'hcm')) {
            const message = (f.typed_config.value ?? f.typed_config) as { http_filters: { name: string }[] };
            if (message.http_filters.length === 0) continue;
            expect(message.http_filters.slice(0, 2).map((f) => f.name)).toEqual(['sluice.leave', 'sluice.drain']);
          }
        }
      }),
    );
  });
});

describe('leaveSlot', () => {
  const { leaveFile: _, ...withoutFile } = env;
  it.each([
    ['where connections can be chosen', env, 'ads', true],
    ['not on an Envoy whose Lua can not', { ...env, leave: false }, 'ads', false],
    ['not where no file feeds it', withoutFile, 'file', false],
    ['by file where there is one', env, 'file', true],
  ] as const)('is there %s', (_what, e, source, there) => {
    expect(leaveSlot(source, e) !== undefined).toBe(there);
  });

  it('comes in front of a drain slot that an older preset put there', () => {
    const old = { name: 'sluice.drain', config_discovery: { older: true } };
    const manager = { '@type': HCM, http_filters: [old, router] };
    const chain = { filters: [{ name: 'hcm', typed_config: manager }] };
    const { value } = withListenerPresets({ filter_chains: [chain] }, env);
    const { filters } = (value.filter_chains as { filters: { typed_config: Json }[] }[])[0]!;
    expect(filters[1]?.typed_config.http_filters).toEqual([leaveSlot('ads', env), old, router]);
  });
});

describe('ageCutoffOf', () => {
  const chainOf = (typed_config: Json) => ({ filters: [{ name: 'hcm', typed_config }] });
  const of = (...durations: readonly (string | undefined)[]) =>
    ageCutoffOf({
      listeners: durations.map((d) => ({
        filter_chains: [
          chainOf({ '@type': HCM, ...(d && { common_http_protocol_options: { max_connection_duration: d } }) }),
        ],
      })),
    });
  const WEEK_MS = 7 * 86_400_000;

  it.each([
    ['no manager', of(), undefined],
    ['one', of('604800s'), { ageCutoff: 'exact', durationMs: WEEK_MS }],
    ['all the same', of('0.5s', '0.500s'), { ageCutoff: 'exact', durationMs: 500 }],
    ['two different', of('604800s', '60s'), { ageCutoff: 'all-only' }],
    ['one without', of('604800s', undefined), { ageCutoff: 'all-only' }],
    ['none at all', of(undefined), { ageCutoff: 'all-only' }],
    ['no duration at all', of('soon'), { ageCutoff: 'all-only' }],
    ['zero', of('0s'), { ageCutoff: 'all-only' }],
  ])('%s', (_what, found, wanted) => expect(found).toEqual(wanted));

  it('looks into a TypedStruct and takes camel case', () => {
    const value = { commonHttpProtocolOptions: { maxConnectionDuration: '60s' } };
    const wrapped = { '@type': 'type.googleapis.com/xds.type.v3.TypedStruct', typeUrl: HCM, value };
    expect(ageCutoffOf(chainOf(wrapped))).toEqual({ ageCutoff: 'exact', durationMs: 60_000 });
  });

  it('reads back what the presets put in, whatever else the user has', () => {
    const plain = withBootstrapPresets(parse(readFileSync(join(TESTDATA, 'plain.in.yaml'), 'utf8')), env).value;
    expect(ageCutoffOf(plain)).toEqual({ ageCutoff: 'exact', durationMs: WEEK_MS });
    fc.assert(
      fc.property(bootstrap, environments, (b, e) => {
        const found = ageCutoffOf(withBootstrapPresets(b, e).value);
        const kept = JSON.stringify(b).includes('"max_connection_duration":"60s"');
        if (found !== undefined && !kept) expect(found).toEqual({ ageCutoff: 'exact', durationMs: WEEK_MS });
      }),
    );
  });
});
