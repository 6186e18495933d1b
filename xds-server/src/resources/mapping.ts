/**
 * Envoy's JSON form of a core message -> the plain object that the generated code encodes, as
 * https://protobuf.dev/programming-guides/json/ says: field names in snake_case or camelCase, enums by name, durations as
 * `1s`, wrappers as their value, bytes as base64.
 *
 * What our protos do not know is refused by its path: protobufjs would drop it in silence. The exception is a
 * `typed_config`: it travels as a TypedStruct, so that Envoy itself converts it by its own, perhaps newer, definition.
 */
import { schema } from '../generated/schema.js';
import { encodeMessage } from './encode.ts';
import { duration, FormError, scalar, shown, timestamp } from './scalars.ts';
import type { FieldSpec, ScalarKind } from './schema.ts';
import { isObject, type Json, type JsonObject } from './types.ts';

export type Path = readonly (string | number)[];
export interface Problem {
  readonly path: Path;
  /** What was expected and what was found. */
  readonly message: string;
}

/** Deeper JSON is refused: the encoder's own bound is 100 messages, and a Struct costs two for each level. */
const MAX_DEPTH = 40;
const TYPED_STRUCT = 'xds.type.v3.TypedStruct';

/**
 * Messages that keep their own type inside an Any. Envoy compares the type URL of a FilterConfig itself
 * (source/common/router/config_impl.cc, PerFilterConfigs) and would look for a filter of that name otherwise.
 */
const OWN_TYPE_IN_ANY = new Set([TYPED_STRUCT, 'envoy.config.route.v3.FilterConfig']);

const WRAPPERS: Readonly<Record<string, ScalarKind>> = {
  'google.protobuf.DoubleValue': 'double',
  'google.protobuf.FloatValue': 'float',
  'google.protobuf.Int64Value': 'int64',
  'google.protobuf.UInt64Value': 'uint64',
  'google.protobuf.Int32Value': 'int32',
  'google.protobuf.UInt32Value': 'uint32',
  'google.protobuf.BoolValue': 'bool',
  'google.protobuf.StringValue': 'string',
  'google.protobuf.BytesValue': 'bytes',
};

type Wire = { [field: string]: unknown };
type Special = (json: Json, path: Path, problems: Problem[]) => unknown;

const SPECIAL: Readonly<Record<string, Special>> = {
  'google.protobuf.Any': toAny,
  'google.protobuf.Struct': toStruct,
  'google.protobuf.Value': toValue,
  'google.protobuf.ListValue': (json, path, problems) => {
    if (!Array.isArray(json)) throw new FormError(`expected a list, found ${shown(json)}`);
    return { values: json.map((item: Json, i) => toValue(item, [...path, i], problems)) };
  },
  'google.protobuf.Duration': duration,
  'google.protobuf.Timestamp': timestamp,
  ...Object.fromEntries(
    Object.entries(WRAPPERS).map(([name, kind]) => [name, (json: Json) => ({ value: scalar(kind, json) })]),
  ),
};

/** snake_case and camelCase name -> name in the .proto file and its form. */
const fieldTables = new Map<string, ReadonlyMap<string, readonly [string, FieldSpec]>>();

function fieldsOf(type: string): ReadonlyMap<string, readonly [string, FieldSpec]> {
  const known = fieldTables.get(type);
  if (known !== undefined) return known;
  const table = new Map<string, readonly [string, FieldSpec]>();
  for (const [name, spec] of Object.entries(schema.messages[type] ?? {})) {
    table.set(name, [name, spec]);
    table.set(
      name.replace(/_+([a-z0-9])/g, (_, next: string) => next.toUpperCase()),
      [name, spec],
    );
  }
  fieldTables.set(type, table);
  return table;
}

/** Runs a conversion; a FormError becomes a problem of this path. */
function at(path: Path, problems: Problem[], convert: () => unknown): unknown {
  try {
    return convert();
  } catch (error) {
    if (!(error instanceof FormError)) throw error;
    problems.push({ path, message: error.message });
    return undefined;
  }
}

/** Every problem found is added to `problems`; with none added the result can be encoded as `type`. */
export function toMessage(type: string, json: Json, problems: Problem[], path: Path = []): unknown {
  if (path.length > MAX_DEPTH) {
    problems.push({ path, message: `expected at most ${MAX_DEPTH} levels` });
    return undefined;
  }
  const special = SPECIAL[type];
  if (special !== undefined) return at(path, problems, () => special(json, path, problems));
  if (!isObject(json)) {
    problems.push({ path, message: `expected an object (${type}), found ${shown(json)}` });
    return undefined;
  }
  const table = fieldsOf(type);
  const wire: Wire = {};
  const oneofs = new Map<string, string>();
  for (const [key, value] of Object.entries(json)) {
    const here = [...path, key];
    const found = table.get(key);
    if (found === undefined) {
      problems.push({ path: here, message: `${type} has no field ${JSON.stringify(key)}${nearest(key, table)}` });
      continue;
    }
    const [name, spec] = found;
    if (value === null && spec.type !== 'google.protobuf.Value') continue;
    if (Object.hasOwn(wire, name)) {
      problems.push({ path: here, message: `expected ${name} once, found it in snake_case and in camelCase` });
    }
    const other = spec.oneof === undefined ? undefined : oneofs.get(spec.oneof);
    if (other !== undefined) {
      problems.push({ path: here, message: `expected one of ${other} and ${name} (${spec.oneof}), found both` });
    }
    if (spec.oneof !== undefined) oneofs.set(spec.oneof, name);
    wire[name] = toField(spec, value, here, problems);
  }
  return wire;
}

function nearest(key: string, table: ReadonlyMap<string, unknown>): string {
  const plain = (name: string): string => name.replaceAll('_', '').toLowerCase();
  const match = [...table.keys()].find((name) => plain(name) === plain(key));
  return match === undefined ? ' that this version of Sluice knows' : `; did you mean ${match}?`;
}

function toField(spec: FieldSpec, json: Json, path: Path, problems: Problem[]): unknown {
  if (spec.map !== undefined) {
    if (!isObject(json)) {
      problems.push({ path, message: `expected an object, found ${shown(json)}` });
      return undefined;
    }
    const out: Wire = Object.create(null);
    for (const [key, value] of Object.entries(json)) out[key] = toSingle(spec, value, [...path, key], problems);
    return out;
  }
  if (spec.repeated === true) {
    if (!Array.isArray(json)) {
      problems.push({ path, message: `expected a list, found ${shown(json)}` });
      return undefined;
    }
    return json.map((item: Json, i) => toSingle(spec, item, [...path, i], problems));
  }
  return toSingle(spec, json, path, problems);
}

function toSingle(spec: FieldSpec, json: Json, path: Path, problems: Problem[]): unknown {
  if (spec.kind === 'message') return toMessage(spec.type, json, problems, path);
  if (spec.kind === 'enum') return at(path, problems, () => toEnum(spec.type, json));
  const { kind } = spec;
  return at(path, problems, () => scalar(kind, json));
}

function toEnum(type: string, json: Json): number {
  const values = schema.enums[type]!;
  if (typeof json === 'number' && Number.isInteger(json)) return json;
  if (typeof json === 'string' && Object.hasOwn(values, json)) return values[json]!;
  throw new FormError(`expected one of ${Object.keys(values).join(', ')}, found ${shown(json)}`);
}

function toStruct(json: Json, path: Path, problems: Problem[]): unknown {
  if (!isObject(json)) throw new FormError(`expected an object, found ${shown(json)}`);
  const fields: Wire = Object.create(null);
  for (const [key, value] of Object.entries(json)) fields[key] = toValue(value, [...path, key], problems);
  return { fields };
}

function toValue(json: Json, path: Path, problems: Problem[]): unknown {
  if (path.length > MAX_DEPTH) throw new FormError(`expected at most ${MAX_DEPTH} levels`);
  if (json === null) return { nullValue: 0 };
  switch (typeof json) {
    case 'string':
      return { stringValue: json };
    case 'number':
      return { numberValue: json };
    case 'boolean':
      return { boolValue: json };
    default:
      if (Array.isArray(json)) {
        return { listValue: { values: json.map((item: Json, i) => toValue(item, [...path, i], problems)) } };
      }
      return { structValue: toStruct(json, path, problems) };
  }
}

/** `{ "@type": URL, ... }` -> Any. */
function toAny(json: Json, path: Path, problems: Problem[]): unknown {
  if (!isObject(json)) throw new FormError(`expected an object with "@type", found ${shown(json)}`);
  const { '@type': url, ...body } = json;
  const type = typeof url === 'string' ? /^[^/\s]+\/([\w.]+)$/.exec(url)?.[1] : undefined;
  if (type === undefined) {
    throw new FormError(`expected "@type": "type.googleapis.com/MESSAGE", found ${shown(url ?? 'no "@type"')}`);
  }
  // The older twin has the same two fields and Envoy treats both alike.
  const own = type === 'udpa.type.v1.TypedStruct' ? TYPED_STRUCT : type;
  const wellKnown = SPECIAL[own] !== undefined;
  if (wellKnown || OWN_TYPE_IN_ANY.has(own)) {
    const before = problems.length;
    const message = toMessage(own, wellKnown ? (body.value ?? null) : body, problems, path);
    if (problems.length > before) return undefined;
    return { type_url: `type.googleapis.com/${own}`, value: encodeMessage(own, message) };
  }
  const before = problems.length;
  const value = toStruct(body as JsonObject, path, problems);
  if (problems.length > before) return undefined;
  return {
    type_url: `type.googleapis.com/${TYPED_STRUCT}`,
    value: encodeMessage(TYPED_STRUCT, { type_url: url as string, value }),
  };
}

/** The same JSON with the core messages' fields in snake_case and nulls left out; call it for what toMessage accepted. */
export function canonical(type: string, json: Json): Json {
  if (SPECIAL[type] !== undefined || !isObject(json)) return json;
  const table = fieldsOf(type);
  const out: { [key: string]: Json } = {};
  for (const [key, value] of Object.entries(json)) {
    const [name, spec] = table.get(key) ?? [];
    if (name === undefined || spec === undefined || (value === null && spec.type !== 'google.protobuf.Value')) continue;
    out[name] = canonicalField(spec, value);
  }
  return out;
}

function canonicalField(spec: FieldSpec, json: Json): Json {
  if (spec.kind !== 'message') return json;
  if (spec.repeated === true && Array.isArray(json)) return json.map((item: Json) => canonical(spec.type, item));
  if (spec.map !== undefined && isObject(json)) {
    return Object.fromEntries(Object.entries(json).map(([key, value]) => [key, canonical(spec.type, value)]));
  }
  return canonical(spec.type, json);
}

/** `filter_chains[0].filters[1].name` */
export function showPath(path: Path): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[\w@]+$/.test(part)) text += text === '' ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}
