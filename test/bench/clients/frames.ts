/**
 * As much of HTTP/2 (RFC 9113) as a lean client needs, so that one process can hold thousands of connections and knows of
 * each what it was told and when: node:http2 costs about 100 KB a session and hides which request went where. Pure.
 */
export const FRAME = {
  data: 0,
  headers: 1,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
} as const;
export const FLAG = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;
const HEAD_BYTES = 9;
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return payload.length === 0 ? head : Buffer.concat([head, payload]);
}

/** Header table size 0 (what we are sent needs no table to be read), push off. */
export function clientPreface(): Buffer {
  const settings = Buffer.from([0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
  return Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0, settings)]);
}

/** Takes bytes in any pieces and gives whole frames. */
export class FrameReader {
  private rest: Buffer = Buffer.alloc(0);

  push(chunk: Buffer): Frame[] {
    let bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    const frames: Frame[] = [];
    while (bytes.length >= HEAD_BYTES) {
      const end = HEAD_BYTES + bytes.readUIntBE(0, 3);
      if (bytes.length < end) break;
      const stream = bytes.readUInt32BE(5) & 0x7fffffff;
      frames.push({ type: bytes[3] ?? 0, flags: bytes[4] ?? 0, stream, payload: bytes.subarray(HEAD_BYTES, end) });
      bytes = bytes.subarray(end);
    }
    this.rest = bytes.length === 0 ? Buffer.alloc(0) : Buffer.from(bytes);
    return frames;
  }
}

/** HPACK (RFC 7541): the static table for the method, everything else literal, not indexed, no Huffman. */
export function headerBlock(method: 'GET' | 'POST', path: string, authority: string, more: [string, string][]): Buffer {
  const parts: Buffer[] = [Buffer.from([method === 'GET' ? 0x82 : 0x83, 0x86])];
  parts.push(Buffer.from([0x04]), text(path), Buffer.from([0x01]), text(authority));
  for (const [name, value] of more) parts.push(Buffer.from([0x00]), text(name), text(value));
  return Buffer.concat(parts);
}

/** @throws RangeError: the length of 127 and more needs further bytes, which no bench wants */
function text(value: string): Buffer {
  if (value.length > 126) throw new RangeError(`a header of ${value.length} bytes`);
  return Buffer.from([value.length, ...Buffer.from(value, 'latin1')]);
}

/** Whether a header block begins with `:status: 200`: static index 8, perhaps after changes of the table's size. */
export function saysOk(block: Buffer): boolean {
  let at = 0;
  while (at < block.length && ((block[at] ?? 0) & 0xe0) === 0x20) at++;
  return block[at] === 0x88;
}
