import { SluiceError } from '@sluice/contract';
import { bytesField, decodeFields, type Field, lastBytes, lastVarint, varintField } from './protobuf.ts';

/**
 * Envoy's hot restart messages (source/server/hot_restart.proto, the same field numbers in 1.36 to 1.40). On the wire: 8 bytes of
 * length, big-endian, then the message; in datagrams of at most 4096 bytes, the length in the first one only
 * (hot_restarting_base.cc). Both directions are blocking request and reply, so that messages never interleave.
 */
export interface ListenSocketRequest {
  /** Envoy's form: `tcp://127.0.0.1:10000`. */
  readonly address: string;
  readonly worker: number;
  /** Path of a network namespace, 1.38 and later. */
  readonly networkNamespace?: string;
}

export type Message =
  | ({ readonly kind: 'passListenSocket' } & ListenSocketRequest)
  | { readonly kind: 'shutdownAdmin' | 'stats' | 'drainListeners' | 'terminate' | 'forwardedUdp' | 'testConnection' }
  /** `fd`: number in the parent's table, -1 = no such socket. The descriptor itself travels beside the message. */
  | { readonly kind: 'passListenSocketReply'; readonly fd: number }
  | { readonly kind: 'shutdownAdminReply'; readonly originalStartSeconds: bigint; readonly reusePortDefault: boolean }
  | { readonly kind: 'statsReply' }
  | { readonly kind: 'notRecognized' }
  | { readonly kind: 'unknown' };

const REQUEST = 1;
const REPLY = 2;
const NOT_RECOGNIZED = 3;
const REQUEST_KINDS = {
  2: 'shutdownAdmin',
  3: 'stats',
  4: 'drainListeners',
  5: 'terminate',
  6: 'forwardedUdp',
  7: 'testConnection',
} as const;
const REQUEST_NUMBERS = { shutdownAdmin: 2, stats: 3, drainListeners: 4, terminate: 5, testConnection: 7 } as const;

const UNKNOWN: Message = { kind: 'unknown' };

/** Any bytes in, a message out: what is not understood whole is `unknown`, never an exception. */
export function decodeMessage(body: Buffer): Message {
  const fields = decodeFields(body);
  if (fields === undefined) return UNKNOWN;
  const request = lastBytes(fields, REQUEST);
  const reply = lastBytes(fields, REPLY);
  if (request !== undefined && reply === undefined) return decodeRequest(decodeFields(request));
  if (reply !== undefined && request === undefined) return decodeReply(decodeFields(reply));
  return lastVarint(fields, NOT_RECOGNIZED) === 1n ? { kind: 'notRecognized' } : UNKNOWN;
}

function only(fields: readonly Field[] | undefined): { number: number; value: Buffer } | undefined {
  const field = fields?.length === 1 ? fields[0] : undefined;
  return field?.wire === 2 ? field : undefined;
}

function decodeRequest(fields: readonly Field[] | undefined): Message {
  const field = only(fields);
  if (field === undefined) return UNKNOWN;
  if (field.number === 1) {
    const parts = decodeFields(field.value);
    const address = parts && lastBytes(parts, 1)?.toString();
    const worker = parts && Number(lastVarint(parts, 2) ?? 0n);
    if (address === undefined || worker === undefined || worker > 0xffffffff) return UNKNOWN;
    const networkNamespace = parts && lastBytes(parts, 3)?.toString();
    return { kind: 'passListenSocket', address, worker, ...(networkNamespace ? { networkNamespace } : {}) };
  }
  const kind = (REQUEST_KINDS as Record<number, (typeof REQUEST_KINDS)[keyof typeof REQUEST_KINDS]>)[field.number];
  return kind === undefined ? UNKNOWN : { kind };
}

function decodeReply(fields: readonly Field[] | undefined): Message {
  const field = only(fields);
  const parts = field && decodeFields(field.value);
  if (field === undefined || parts === undefined) return UNKNOWN;
  if (field.number === 1) {
    return { kind: 'passListenSocketReply', fd: Number(BigInt.asIntN(32, lastVarint(parts, 1) ?? 0n)) };
  }
  if (field.number === 2) {
    const originalStartSeconds = lastVarint(parts, 1) ?? 0n;
    return { kind: 'shutdownAdminReply', originalStartSeconds, reusePortDefault: (lastVarint(parts, 2) ?? 0n) !== 0n };
  }
  return field.number === 3 ? { kind: 'statsReply' } : UNKNOWN;
}

/** A framed message in one datagram; all that we write ourselves is far below Envoy's 4096 bytes. */
function frame(body: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(body.length));
  return Buffer.concat([length, body]);
}

export function encodeListenSocketRequest(request: ListenSocketRequest): Buffer {
  const parts = [bytesField(1, Buffer.from(request.address))];
  // proto3 leaves a zero out.
  if (request.worker !== 0) parts.push(varintField(2, BigInt(request.worker)));
  if (request.networkNamespace) parts.push(bytesField(3, Buffer.from(request.networkNamespace)));
  return frame(bytesField(REQUEST, bytesField(1, Buffer.concat(parts))));
}

export function encodeRequest(kind: keyof typeof REQUEST_NUMBERS): Buffer {
  return frame(bytesField(REQUEST, bytesField(REQUEST_NUMBERS[kind], Buffer.alloc(0))));
}

/** `given`: a descriptor travels with it. The number itself is replaced by the receiver (getPassedFdIfPresent). */
export function encodeListenSocketReply(given: boolean): Buffer {
  return frame(bytesField(REPLY, bytesField(1, varintField(1, given ? 1n : -1n))));
}

export function encodeShutdownAdminReply(originalStartSeconds: bigint): Buffer {
  // enable_reuse_port_default is true on every Linux (server.cc: ReusePortDefault), and was the runtime's choice before 1.20.
  return frame(
    bytesField(REPLY, bytesField(2, Buffer.concat([varintField(1, originalStartSeconds), varintField(2, 1n)]))),
  );
}

export function encodeEmptyStatsReply(): Buffer {
  return frame(bytesField(REPLY, bytesField(3, Buffer.alloc(0))));
}

export function encodeNotRecognized(): Buffer {
  return frame(varintField(NOT_RECOGNIZED, 1n));
}

/** 64 MB of statistics would be some million of them. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

export interface Assembled {
  readonly message: Message;
  /** The datagrams as they came, to be relayed untouched. */
  readonly datagrams: readonly Buffer[];
}

/** Puts the datagrams of one direction together to whole messages. */
export class Assembler {
  #datagrams: Buffer[] = [];
  #missing = 0;

  /** A whole message, or undefined while parts of it are missing. Throws PREFLIGHT_WIRE when the framing is not Envoy's. */
  push(datagram: Buffer): Assembled | undefined {
    if (this.#datagrams.length === 0) {
      const length = datagram.length < 8 ? undefined : datagram.readBigUInt64BE(0);
      if (length === undefined || length > BigInt(MAX_MESSAGE_BYTES))
        throw this.#unframed(datagram, 'a length of 8 bytes');
      this.#missing = Number(length) + 8;
    }
    if (datagram.length === 0 || datagram.length > this.#missing) {
      const expected = `at most ${this.#missing} bytes more`;
      this.#datagrams = [];
      throw this.#unframed(datagram, expected);
    }
    this.#datagrams.push(datagram);
    this.#missing -= datagram.length;
    if (this.#missing > 0) return undefined;
    const datagrams = this.#datagrams;
    this.#datagrams = [];
    return { message: decodeMessage(Buffer.concat(datagrams).subarray(8)), datagrams };
  }

  #unframed(datagram: Buffer, expected: string): SluiceError {
    const found = datagram.subarray(0, 16).toString('hex');
    return new SluiceError('PREFLIGHT_WIRE', `expected ${expected}, found ${datagram.length} bytes: ${found}`);
  }
}
