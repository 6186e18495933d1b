import { gunzipSync, gzipSync } from 'node:zlib';
import { SluiceError } from '@sluice/contract';

/** Of the state in custom resources. Larger: written by a newer Sluice. */
export const FORMAT = 1;
/** etcd takes 1.5 MiB a request, the API server's own fields come on top. */
export const MAX_PAYLOAD_BYTES = 1_200_000;
/** Longer JSON is gzipped: it shrinks to a tenth, and each write of it travels to every etcd member. */
const PLAIN = 16_384;
const MAX_JSON_BYTES = 64 * 1024 * 1024;

/** A value as an object carries it: JSON, which people can read, or base64 of gzipped JSON. */
export interface Payload {
  readonly json?: string;
  readonly gzip?: string;
}

export function pack(value: unknown): Payload {
  const json = JSON.stringify(value);
  return json.length <= PLAIN ? { json } : { gzip: gzipSync(json).toString('base64') };
}

/** Throws STATE_INVALID. @param what names the object in the error */
export function unpack<T>(payload: Payload | undefined, what: string): T {
  try {
    const { json, gzip } = payload ?? {};
    if (gzip === undefined) return JSON.parse(json ?? '') as T;
    return JSON.parse(gunzipSync(Buffer.from(gzip, 'base64'), { maxOutputLength: MAX_JSON_BYTES }).toString()) as T;
  } catch (cause) {
    throw new SluiceError('STATE_INVALID', `${what}: expected JSON, found: ${(cause as Error).message}`, { cause });
  }
}

export function sizeOf({ json, gzip }: Payload): number {
  // Quotes are written as two characters, what is not ASCII as up to three bytes.
  return gzip?.length ?? Buffer.byteLength(JSON.stringify(json ?? ''));
}
