// A byte writer of bounded size and a forward reader; both little-endian, which is what wasm is.

const FIRST_SIZE: i32 = 4096;

/** Memory outside the collector's heap, kept between reports, grown by doubling up to `max`. */
export class Writer {
  private from: usize = 0;
  private capacity: i32 = 0;
  size: i32 = 0;

  constructor(private max: i32) {}

  get start(): usize {
    return this.from;
  }

  /** True when `bytes` more fit under the bound. */
  fits(bytes: i32): bool {
    return this.size + bytes <= this.max;
  }

  /** Starts over. A large buffer is given back, so that one large snapshot does not keep its memory. */
  clear(): void {
    this.size = 0;
    if (this.capacity > FIRST_SIZE * 4) {
      heap.free(this.from);
      this.from = 0;
      this.capacity = 0;
    }
  }

  private room(bytes: i32): usize {
    const at = this.size;
    this.size += bytes;
    if (this.size > this.capacity) {
      let larger = max(this.capacity * 2, FIRST_SIZE);
      while (larger < this.size) larger *= 2;
      const moved = heap.alloc(larger);
      if (this.from != 0) {
        memory.copy(moved, this.from, at);
        heap.free(this.from);
      }
      this.from = moved;
      this.capacity = larger;
    }
    return this.from + <usize>at;
  }

  u8(value: u8): void {
    store<u8>(this.room(1), value);
  }

  u16(value: u16): void {
    store<u16>(this.room(2), value);
  }

  u32(value: u32): void {
    store<u32>(this.room(4), value);
  }

  u64(value: u64): void {
    store<u64>(this.room(8), value);
  }

  /** Overwrites four bytes written before. */
  patch32(at: i32, value: u32): void {
    store<u32>(this.from + <usize>at, value);
  }

  patch16(at: i32, value: u16): void {
    store<u16>(this.from + <usize>at, value);
  }

  bytes(value: ArrayBuffer): void {
    memory.copy(this.room(value.byteLength), changetype<usize>(value), value.byteLength);
  }

  /** Length in one byte, then the bytes, cut at 255. */
  str(value: ArrayBuffer): void {
    const length = min(value.byteLength, 255);
    this.u8(<u8>length);
    memory.copy(this.room(length), changetype<usize>(value), length);
  }
}

/** `ok` turns false at the first read past the end; what is read then is 0. */
export class Reader {
  private at: i32 = 0;
  ok: bool = true;

  constructor(private from: ArrayBuffer) {}

  private next(bytes: i32): usize {
    if (this.at + bytes > this.from.byteLength) {
      this.ok = false;
      return 0;
    }
    const at = changetype<usize>(this.from) + <usize>this.at;
    this.at += bytes;
    return at;
  }

  u8(): u8 {
    const at = this.next(1);
    return at == 0 ? 0 : load<u8>(at);
  }

  u16(): u16 {
    const at = this.next(2);
    return at == 0 ? 0 : load<u16>(at);
  }

  u32(): u32 {
    const at = this.next(4);
    return at == 0 ? 0 : load<u32>(at);
  }

  u64(): u64 {
    const at = this.next(8);
    return at == 0 ? 0 : load<u64>(at);
  }
}

/** True when both hold the same bytes. */
export function same(a: ArrayBuffer, b: ArrayBuffer): bool {
  return a.byteLength == b.byteLength && memory.compare(changetype<usize>(a), changetype<usize>(b), a.byteLength) == 0;
}
