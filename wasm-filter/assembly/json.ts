// Just enough JSON to read numbers and strings of a top-level object; no general parser, because this runs in Envoy's
// workers and its input, an order, has three fields that the filter itself needs.

function isSpace(c: u8): bool {
  return c == 0x20 || c == 0x0a || c == 0x0d || c == 0x09;
}

export class TopLevel {
  private at: i32 = 0;

  constructor(private text: ArrayBuffer) {}

  private peek(): u8 {
    while (this.at < this.text.byteLength && isSpace(load<u8>(changetype<usize>(this.text) + <usize>this.at)))
      this.at++;
    return this.at < this.text.byteLength ? load<u8>(changetype<usize>(this.text) + <usize>this.at) : 0;
  }

  /** Past a string; its content without the quotes, escapes left as they are. null when it does not end. */
  private string(): ArrayBuffer | null {
    if (this.peek() != 0x22) return null;
    const from = ++this.at;
    const start = changetype<usize>(this.text);
    while (this.at < this.text.byteLength) {
      const c = load<u8>(start + <usize>this.at);
      if (c == 0x5c) {
        this.at += 2;
        continue;
      }
      if (c == 0x22) return this.text.slice(from, this.at++);
      this.at++;
    }
    return null;
  }

  /** Past one value of any kind; its text (a string with its quotes). null when it does not end. */
  private value(): ArrayBuffer | null {
    const start = changetype<usize>(this.text);
    this.peek();
    const from = this.at;
    let depth = 0;
    while (this.at < this.text.byteLength) {
      const c = load<u8>(start + <usize>this.at);
      if (c == 0x22) {
        if (this.string() === null) return null;
        if (depth == 0) return this.text.slice(from, this.at);
        continue;
      }
      if (c == 0x7b || c == 0x5b) depth++;
      else if (c == 0x7d || c == 0x5d) {
        if (depth == 0) break;
        if (--depth == 0) return this.text.slice(from, ++this.at);
      } else if (depth == 0 && (c == 0x2c || isSpace(c))) break;
      this.at++;
    }
    return depth == 0 && this.at > from ? this.text.slice(from, this.at) : null;
  }

  /** The text of the value of `key`, or null when the object does not have it or is cut short before it. */
  get(key: string): ArrayBuffer | null {
    const wanted = String.UTF8.encode(key);
    this.at = 0;
    if (this.peek() != 0x7b) return null;
    this.at++;
    while (this.peek() == 0x22) {
      const name = this.string();
      if (name === null || this.peek() != 0x3a) return null;
      this.at++;
      const value = this.value();
      if (value === null) return null;
      if (
        name.byteLength == wanted.byteLength &&
        memory.compare(changetype<usize>(name), changetype<usize>(wanted), wanted.byteLength) == 0
      )
        return value;
      if (this.peek() != 0x2c) return null;
      this.at++;
    }
    return null;
  }

  /** A whole number from 0 to 2^53 - 1, or -1. */
  integer(key: string): i64 {
    const value = this.get(key);
    if (value === null || value.byteLength == 0 || value.byteLength > 16) return -1;
    return decimal(value);
  }

  /** The content of a string without escapes; empty when the key is not there. */
  text_(key: string): ArrayBuffer {
    const value = this.get(key);
    if (value === null || value.byteLength < 2 || load<u8>(changetype<usize>(value)) != 0x22) return new ArrayBuffer(0);
    return value.slice(1, value.byteLength - 1);
  }
}

/** Decimal digits as a number, -1 when anything else is among them. */
export function decimal(digits: ArrayBuffer): i64 {
  if (digits.byteLength == 0 || digits.byteLength > 16) return -1;
  let result: i64 = 0;
  for (let i = 0; i < digits.byteLength; i++) {
    const c = load<u8>(changetype<usize>(digits) + <usize>i);
    if (c < 0x30 || c > 0x39) return -1;
    result = result * 10 + <i64>(c - 0x30);
  }
  return result <= 9007199254740991 ? result : -1;
}
