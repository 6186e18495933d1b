import { SluiceError } from './errors.ts';

/** Something of a report or reply is not as its format says. */
export function invalid(expected: string, found: string): SluiceError {
  return new SluiceError('REPORT_INVALID', `expected ${expected}, found ${found}`);
}

const NS_PER_MS = 1_000_000n;
// Not fatal: a string cut at 255 bytes may end inside a character.
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Reads forward only; every read checks the bytes that are left first. */
export class Reader {
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  #take(length: number, what: string): number {
    if (length > this.left) throw invalid(`${length} bytes of ${what} at offset ${this.#at}`, `${this.left}`);
    const at = this.#at;
    this.#at += length;
    return at;
  }

  u8(what: string): number {
    return this.#view.getUint8(this.#take(1, what));
  }

  u16(what: string): number {
    return this.#view.getUint16(this.#take(2, what), true);
  }

  u32(what: string): number {
    return this.#view.getUint32(this.#take(4, what), true);
  }

  u64(what: string): bigint {
    return this.#view.getBigUint64(this.#take(8, what), true);
  }

  /** A u64 that has to be exact as a number: counters and versions. */
  count(what: string): number {
    const value = this.u64(what);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid(`${what} below 2^53`, String(value));
    return Number(value);
  }

  /** Nanoseconds since 1970 as milliseconds. */
  time(what: string): number {
    return Number(this.u64(what) / NS_PER_MS);
  }

  text(length: number, what: string): string {
    const at = this.#take(length, what);
    return utf8.decode(this.#bytes.subarray(at, at + length));
  }

  str(what: string): string {
    return this.text(this.u8(`${what} length`), what);
  }
}

/** Grows by doubling; both encoders use it. */
export class Writer {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  get length(): number {
    return this.#at;
  }

  #room(length: number): number {
    const at = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#at));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  u8(value: number): void {
    this.#view.setUint8(this.#room(1), value);
  }

  u16(value: number): void {
    this.#view.setUint16(this.#room(2), value, true);
  }

  u32(value: number): void {
    this.#view.setUint32(this.#room(4), value, true);
  }

  u64(value: bigint | number | string): void {
    this.#view.setBigUint64(this.#room(8), BigInt(value), true);
  }

  time(ms: number | undefined): void {
    this.u64(BigInt(ms ?? 0) * NS_PER_MS);
  }

  text(value: Uint8Array): void {
    const at = this.#room(value.length);
    this.#bytes.set(value, at);
  }

  str(value: string): void {
    const bytes = Buffer.from(value).subarray(0, 255);
    this.u8(bytes.length);
    this.text(bytes);
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }
}
