import type { Writer } from 'protobufjs';
import * as generated from '../generated/envoy.js';

interface Codec {
  encode(message: unknown): Writer;
  decode(bytes: Uint8Array): object;
}

const codecs = new Map<string, Codec>();

/** The generated code of a message by its full name. Throws for one that was not generated: a fault of ours. */
function codecOf(type: string): Codec {
  const known = codecs.get(type);
  if (known !== undefined) return known;
  let found: unknown = generated;
  for (const part of type.split('.')) found = (found as Record<string, unknown> | undefined)?.[part];
  if (found === undefined) throw new Error(`no generated code for ${type}; see scripts/proto-roots.ts`);
  codecs.set(type, found as Codec);
  return found as Codec;
}

/** `message`: what toMessage() made of it. */
export function encodeMessage(type: string, message: unknown): Buffer {
  const bytes = codecOf(type).encode(message).finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** For tests and tools: field names in snake_case. */
export function decodeMessage(type: string, bytes: Uint8Array): Record<string, unknown> {
  return codecOf(type).decode(bytes) as Record<string, unknown>;
}
