/**
 * The few bytes of protobuf framing that let a response be put together from parts encoded once:
 * https://protobuf.dev/programming-guides/encoding/. DiscoveryResponse and DeltaDiscoveryResponse both carry the
 * resources in field 2, the type URL in field 4 and the nonce in field 5; fields may stand in any order.
 */
const LENGTH_DELIMITED = 2;

export const DELTA_RESOURCE = { inResponse: 2, version: 1, resource: 2, name: 3 } as const;
const RESPONSE = { version: 1, typeUrl: 4, nonce: 5, removed: 6 } as const;
const ANY = { typeUrl: 1, value: 2 } as const;

/** A resource as a whole field 2 of a response. */
export interface Framed {
  readonly sotw: Buffer;
  readonly delta: Buffer;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return bytes;
}

export function field(id: number, content: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([(id << 3) | LENGTH_DELIMITED, ...varint(content.length)]), content]);
}

export function text(id: number, value: string): Buffer {
  return field(id, Buffer.from(value, 'utf8'));
}

export function framedAny(typeUrl: string, value: Buffer): Buffer {
  return Buffer.concat([text(ANY.typeUrl, typeUrl), field(ANY.value, value)]);
}

/** A DiscoveryResponse without its nonce. */
export function sotwBody(typeUrl: string, version: string, resources: readonly Buffer[]): Buffer {
  return Buffer.concat([text(RESPONSE.version, version), ...resources, text(RESPONSE.typeUrl, typeUrl)]);
}

/** A DeltaDiscoveryResponse without its nonce. */
export function deltaBody(
  typeUrl: string,
  version: string,
  resources: readonly Buffer[],
  removed: readonly string[],
): Buffer {
  return Buffer.concat([
    text(RESPONSE.version, version),
    ...resources,
    text(RESPONSE.typeUrl, typeUrl),
    ...removed.map((name) => text(RESPONSE.removed, name)),
  ]);
}

export function withNonce(body: Buffer, nonce: string): Buffer {
  return Buffer.concat([body, text(RESPONSE.nonce, nonce)]);
}
