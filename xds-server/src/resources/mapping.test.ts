// biome-ignore-all lint/suspicious/noExplicitAny: decoded messages are looked into without their types
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeMessage, encodeMessage } from './encode.ts';
import { canonical, type Problem, showPath, toMessage } from './mapping.ts';
import type { Json, JsonObject } from './types.ts';

const LISTENER = 'envoy.config.listener.v3.Listener';
const CLUSTER = 'envoy.config.cluster.v3.Cluster';
const ROUTES = 'envoy.config.route.v3.RouteConfiguration';
const EXTENSION = 'envoy.config.core.v3.TypedExtensionConfig';

function problems(type: string, json: Json): string[] {
  const found: Problem[] = [];
  toMessage(type, json, found);
  return found.map(({ path, message }) => `${showPath(path)}: ${message}`);
}

/** Encoded and decoded again. */
function through(type: string, json: Json): Record<string, unknown> {
  const found: Problem[] = [];
  const wire = toMessage(type, json, found);
  expect(found).toEqual([]);
  return decodeMessage(type, encodeMessage(type, wire));
}

/** google.protobuf.Struct -> JSON, written here a second time so that the test does not trust the code it tests. */
function plain(value: Record<string, any>): Json {
  if (value.structValue) return fromStruct(value.structValue);
  if (value.listValue) return (value.listValue.values ?? []).map(plain);
  for (const key of ['stringValue', 'numberValue', 'boolValue'])
    if (Object.hasOwn(value, key)) return value[key] as Json;
  return null;
}
function fromStruct(struct: { fields?: Record<string, any> }): JsonObject {
  return Object.fromEntries(Object.entries(struct.fields ?? {}).map(([key, value]) => [key, plain(value)]));
}
function typedStruct(any: { type_url: string; value: Uint8Array }): { type_url: string; value: JsonObject } {
  expect(any.type_url).toBe('type.googleapis.com/xds.type.v3.TypedStruct');
  const struct = decodeMessage('xds.type.v3.TypedStruct', any.value);
  return { type_url: struct.type_url as string, value: fromStruct(struct.value as object) };
}

describe('core messages', () => {
  it('takes snake_case and camelCase, durations, enums, wrappers and oneofs', () => {
    const cluster = {
      name: 'c',
      connectTimeout: '0.25s',
      lb_policy: 'LEAST_REQUEST',
      perConnectionBufferLimitBytes: 32768,
      type: 'STRICT_DNS',
      upstream_bind_config: { source_address: { address: '::', port_value: 0 } },
      metadata: { filter_metadata: { x: { deep: [1, 'two', true, null, { k: {} }] } } },
    };
    const wire = through(CLUSTER, cluster) as any;
    expect(wire).toMatchObject({
      name: 'c',
      lb_policy: 1,
      type: 1,
      per_connection_buffer_limit_bytes: { value: 32768 },
    });
    expect(Number(wire.connect_timeout.seconds)).toBe(0);
    expect(wire.connect_timeout.nanos).toBe(250_000_000);
    expect(fromStruct(wire.metadata.filter_metadata.x)).toEqual(cluster.metadata.filter_metadata.x);
  });

  it('refuses an unknown field by its path and names a near one', () => {
    expect(problems(LISTENER, { name: 'l', filter_chains: [{ filters: [{ nam: 'x' }] }] })).toEqual([
      'filter_chains[0].filters[0].nam: envoy.config.listener.v3.Filter has no field "nam" that this version of Sluice knows',
    ]);
    expect(problems(LISTENER, { 'filter-chains': [], FilterChains: [] })[1]).toMatch(/did you mean filter_chains\?$/);
  });

  it.each<[string, string, Json, string]>([
    ['a string', LISTENER, { name: 1 }, 'name: expected a string, found number 1'],
    ['a list', LISTENER, { filter_chains: {} }, 'filter_chains: expected a list, found an object'],
    ['an object', LISTENER, { address: 'x' }, 'address: expected an object (envoy.config.core.v3.Address), found "x"'],
    ['a duration', CLUSTER, { connect_timeout: '5' }, 'connect_timeout: expected a duration such as "1.5s", found "5"'],
    [
      'an integer',
      CLUSTER,
      { per_connection_buffer_limit_bytes: 1.5 },
      'per_connection_buffer_limit_bytes: expected an integer',
    ],
    ['a range', CLUSTER, { per_connection_buffer_limit_bytes: -1 }, 'expected 0 to 4294967295'],
    ['a bool', LISTENER, { enable_mptcp: 'yes' }, 'enable_mptcp: expected true or false'],
    ['an enum', CLUSTER, { lb_policy: 'ROUND' }, 'lb_policy: expected one of ROUND_ROBIN'],
    ['one of', CLUSTER, { type: 'EDS', cluster_type: {} }, 'cluster_type: expected one of type and cluster_type'],
    ['once', CLUSTER, { lb_policy: 0, lbPolicy: 1 }, 'expected lb_policy once'],
    ['@type', EXTENSION, { name: 'x', typed_config: {} }, 'typed_config: expected "@type"'],
  ])('says that it expected %s', (_what, type, json, message) => {
    expect(problems(type, json)).toEqual([expect.stringContaining(message)]);
  });

  it('bounds the depth', () => {
    let deep: Json = {};
    for (let i = 0; i < 100; i += 1) deep = { k: deep };
    expect(problems(EXTENSION, { name: 'x', typed_config: { '@type': 'a/b.C', deep } })).toEqual([
      expect.stringContaining('expected at most 40 levels'),
    ]);
  });

  it('is not moved by a field named __proto__', () => {
    const json = JSON.parse('{"name":"x","__proto__":{"typed_config":1}}') as Json;
    expect(problems(EXTENSION, json)).toEqual([expect.stringContaining('has no field "__proto__"')]);
  });

  it('turns fields into snake_case and leaves a typed_config alone', () => {
    const typed = { '@type': 'a/b.C', someField: { innerField: 1 } };
    expect(
      canonical(LISTENER, { statPrefix: 'p', filterChains: [{ filters: [{ name: 'f', typedConfig: typed }] }] }),
    ).toEqual({
      stat_prefix: 'p',
      filter_chains: [{ filters: [{ name: 'f', typed_config: typed }] }],
    });
  });
});

describe('typed_config', () => {
  it('travels as a TypedStruct, whatever it holds', () => {
    const value = fc.letrec<{ json: Json }>((tie) => ({
      json: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        fc.string(),
        fc.boolean(),
        fc.constant(null),
        fc.double({ noNaN: true, noDefaultInfinity: true }).map((n) => (Object.is(n, -0) ? 0 : n)),
        fc.array(tie('json'), { maxLength: 3 }),
        fc.dictionary(fc.string(), tie('json'), { maxKeys: 3, noNullPrototype: true }),
      ),
    })).json;
    fc.assert(
      fc.property(fc.dictionary(fc.string(), value, { noNullPrototype: true }), (body) => {
        const { '@type': _, ...rest } = body;
        const wire = through(EXTENSION, {
          name: 'x',
          typed_config: { ...rest, '@type': 'type.googleapis.com/new.Thing' },
        });
        expect(typedStruct(wire.typed_config as any)).toEqual({
          type_url: 'type.googleapis.com/new.Thing',
          value: rest,
        });
      }),
    );
  });

  it('keeps nested types inside', () => {
    const inner = { '@type': 'type.googleapis.com/envoy.Router', x: 1 };
    const wire = through(EXTENSION, { name: 'x', typed_config: { '@type': 'type.googleapis.com/envoy.Hcm', inner } });
    expect(typedStruct(wire.typed_config as any).value).toEqual({ inner });
  });

  it('leaves a FilterConfig and a well-known type as they are', () => {
    const config = { '@type': 'type.googleapis.com/envoy.Lua', code: 'x' };
    const filter = { '@type': 'type.googleapis.com/envoy.config.route.v3.FilterConfig', is_optional: true, config };
    const routes = through(ROUTES, { name: 'r', typed_per_filter_config: { lua: filter } }) as any;
    const any = routes.typed_per_filter_config.lua;
    expect(any.type_url).toBe('type.googleapis.com/envoy.config.route.v3.FilterConfig');
    const own = decodeMessage('envoy.config.route.v3.FilterConfig', any.value) as any;
    expect(own.is_optional).toBe(true);
    expect(typedStruct(own.config)).toEqual({ type_url: 'type.googleapis.com/envoy.Lua', value: { code: 'x' } });

    const text = { '@type': 'type.googleapis.com/google.protobuf.StringValue', value: 'hi' };
    const wire = through(EXTENSION, { name: 'x', typed_config: text }) as any;
    expect(decodeMessage('google.protobuf.StringValue', wire.typed_config.value).value).toBe('hi');
  });

  it('takes a TypedStruct that was written as one', () => {
    const value = { a: [1] };
    for (const type of ['xds.type.v3.TypedStruct', 'udpa.type.v1.TypedStruct']) {
      const written = { '@type': `type.googleapis.com/${type}`, type_url: 'type.googleapis.com/envoy.Thing', value };
      const wire = through(EXTENSION, { name: 'x', typed_config: written });
      expect(typedStruct(wire.typed_config as any)).toEqual({ type_url: 'type.googleapis.com/envoy.Thing', value });
    }
  });
});
