import protobuf from 'protobufjs';
import type { FieldSpec, Schema } from '../src/resources/schema.ts';

export interface Reached {
  readonly messages: Set<protobuf.Type>;
  readonly enums: Set<protobuf.Enum>;
}

/** protobufjs names an object with a leading dot. */
function nameOf(object: protobuf.ReflectionObject): string {
  return object.fullName.replace(/^\./, '');
}

/** All messages and enums that the named messages hold, themselves included. */
export function reach(root: protobuf.Root, names: readonly string[]): Reached {
  const messages = new Set<protobuf.Type>();
  const enums = new Set<protobuf.Enum>();
  const queue = names.map((name) => root.lookupType(name));
  for (let type = queue.pop(); type !== undefined; type = queue.pop()) {
    if (messages.has(type)) continue;
    messages.add(type);
    for (const field of type.fieldsArray) {
      const inner = field.resolve().resolvedType;
      if (inner instanceof protobuf.Enum) enums.add(inner);
      else if (inner instanceof protobuf.Type) queue.push(inner);
    }
  }
  return { messages, enums };
}

type Json = { [key: string]: Json } | string | number | boolean | null | Json[] | undefined;
type Namespace = { nested?: { [name: string]: Json } } & { [key: string]: Json };

/** The reflection JSON of these types alone, in their namespaces. Options are left out: they only carry lint and checks. */
export function subset({ messages, enums }: Reached): unknown {
  const out: Namespace = {};
  const place = (object: protobuf.ReflectionObject, body: { [key: string]: Json }): void => {
    let at: Namespace = out;
    for (const part of nameOf(object).split('.')) {
      at.nested ??= {};
      at.nested[part] ??= {};
      at = at.nested[part] as Namespace;
    }
    Object.assign(at, body);
  };
  for (const type of messages) {
    const fields: { [name: string]: Json } = {};
    for (const field of type.fieldsArray) {
      const target = field.resolvedType === null ? field.type : field.resolvedType.fullName;
      fields[field.name] = {
        type: target,
        id: field.id,
        ...(field.repeated ? { rule: 'repeated', ...(field.packed ? {} : { options: { packed: false } }) } : {}),
        ...(field.map ? { keyType: (field as unknown as protobuf.MapField).keyType } : {}),
        ...(field.options?.proto3_optional ? { options: { proto3_optional: true } } : {}),
      };
    }
    const oneofs: { [name: string]: Json } = {};
    for (const oneof of type.oneofsArray) oneofs[oneof.name] = { oneof: [...oneof.oneof] };
    place(type, { edition: 'proto3', ...(Object.keys(oneofs).length > 0 ? { oneofs } : {}), fields });
  }
  for (const type of enums) place(type, { edition: 'proto3', values: { ...type.values } });
  return out;
}

/** The same types as tables that the resource mapping walks, every name resolved. */
export function schemaOf({ messages, enums }: Reached): Schema {
  const schema: { messages: Record<string, Record<string, FieldSpec>>; enums: Record<string, Record<string, number>> } =
    {
      messages: {},
      enums: {},
    };
  for (const type of messages) {
    const fields: Record<string, FieldSpec> = {};
    for (const field of type.fieldsArray) {
      const inner = field.resolvedType;
      // Of a oneof with one member (proto3 optional) nothing can clash.
      const oneof = field.partOf !== null && field.partOf.fieldsArray.length > 1 ? field.partOf.name : undefined;
      fields[field.name] = {
        kind: inner === null ? field.type : inner instanceof protobuf.Enum ? 'enum' : 'message',
        ...(inner === null ? {} : { type: nameOf(inner) }),
        ...(field.map ? { map: (field as unknown as protobuf.MapField).keyType } : {}),
        ...(field.repeated ? { repeated: true as const } : {}),
        ...(oneof === undefined ? {} : { oneof }),
      } as FieldSpec;
    }
    schema.messages[nameOf(type)] = fields;
  }
  for (const type of enums) schema.enums[nameOf(type)] = { ...type.values };
  return schema;
}
