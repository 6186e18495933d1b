import { type Draft, field, isObject, type Json, type JsonObject, normalised, text } from './json.ts';

const PREFIX = 'type.googleapis.com/';
const TYPED_STRUCTS = ['xds.type.v3.TypedStruct', 'udpa.type.v1.TypedStruct'];

/** Full message name of a `typed_config`, looking through TypedStruct; undefined when it is none. */
export function messageType(typed: Json | undefined): string | undefined {
  const url = isObject(typed) ? text(typed['@type']) : undefined;
  if (url === undefined) return undefined;
  const name = url.slice(url.lastIndexOf('/') + 1);
  if (!TYPED_STRUCTS.includes(name)) return name;
  const inner = text(field(typed, 'type_url'));
  return inner?.slice(inner.lastIndexOf('/') + 1);
}

/** Applies `change` to the message's own fields, whether it stands in an Any or in a TypedStruct. */
export function changeMessage(typed: JsonObject, change: (message: JsonObject) => Draft): Draft {
  const url = text(typed['@type']) ?? '';
  if (!TYPED_STRUCTS.includes(url.slice(url.lastIndexOf('/') + 1))) return { ...typed, ...change(typed) };
  const copy = normalised(typed, 'type_url', 'value');
  return { ...copy, value: change(isObject(copy.value) ? copy.value : {}) };
}

export function typed(message: string, fields: JsonObject): JsonObject {
  return { '@type': PREFIX + message, ...fields };
}

export function typeUrl(message: string): string {
  return PREFIX + message;
}

export function stringValue(value: string): JsonObject {
  return typed('google.protobuf.StringValue', { value });
}
