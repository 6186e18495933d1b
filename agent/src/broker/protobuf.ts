/**
 * As much of the protobuf encoding as the hot restart messages need. The agent carries no protobuf library, because
 * every Pod pays for its memory.
 */
export type Field =
  | { readonly number: number; readonly wire: 0; readonly value: bigint }
  | { readonly number: number; readonly wire: 2; readonly value: Buffer }
  | { readonly number: number; readonly wire: 1 | 5; readonly value: Buffer };

/** The fields of one message in their order, or undefined when the bytes are no protobuf message. Never reads outside. */
export function decodeFields(bytes: Buffer): Field[] | undefined {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): bigint | undefined => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) return undefined;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    return undefined;
  };
  while (at < bytes.length) {
    const tag = varint();
    if (tag === undefined || tag >> 3n === 0n || tag > 0xffffffffn) return undefined;
    const number = Number(tag >> 3n);
    const wire = Number(tag & 7n);
    if (wire === 0) {
      const value = varint();
      if (value === undefined) return undefined;
      fields.push({ number, wire, value });
      continue;
    }
    if (wire !== 1 && wire !== 2 && wire !== 5) return undefined;
    const length = wire === 2 ? varint() : wire === 1 ? 8n : 4n;
    if (length === undefined || length > BigInt(bytes.length - at)) return undefined;
    fields.push({ number, wire, value: bytes.subarray(at, at + Number(length)) });
    at += Number(length);
  }
  return fields;
}

export function varintField(number: number, value: bigint): Buffer {
  return Buffer.concat([varint(BigInt(number) << 3n), varint(BigInt.asUintN(64, value))]);
}

export function bytesField(number: number, value: Uint8Array): Buffer {
  return Buffer.concat([varint((BigInt(number) << 3n) | 2n), varint(BigInt(value.length)), value]);
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let left = value;
  while (left >= 0x80n) {
    bytes.push(Number(left & 0x7fn) | 0x80);
    left >>= 7n;
  }
  bytes.push(Number(left));
  return Buffer.from(bytes);
}

/** Last value of a varint field, as protobuf's "last one wins". */
export function lastVarint(fields: readonly Field[], number: number): bigint | undefined {
  const field = fields.findLast((f) => f.number === number && f.wire === 0);
  return field?.wire === 0 ? field.value : undefined;
}

export function lastBytes(fields: readonly Field[], number: number): Buffer | undefined {
  const field = fields.findLast((f) => f.number === number && f.wire === 2);
  return field?.wire === 2 ? field.value : undefined;
}
