import { SluiceError } from './errors.ts';
import { MAX_LINE_BYTES } from './messages.ts';

/**
 * Framing of the agent-controller link: JSON objects, one a line. The decoder holds at most one unfinished line of at
 * most `maxLineBytes`, so a peer that never ends its line can not fill the memory.
 */
export class NdjsonDecoder {
  readonly #maxLineBytes: number;
  #parts: Uint8Array[] = [];
  #held = 0;

  constructor(maxLineBytes: number = MAX_LINE_BYTES) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** Bytes of the unfinished line. */
  get pending(): number {
    return this.#held;
  }

  /**
   * Takes the next bytes of the stream, returns the objects completed by them. Throws TOO_LARGE past the bound and
   * INPUT_INVALID for a line that is no JSON object; after either the stream can not be trusted and is to be closed.
   */
  push(chunk: Uint8Array): Record<string, unknown>[] {
    const objects: Record<string, unknown>[] = [];
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(0x0a, from);
      const piece = chunk.subarray(from, end === -1 ? chunk.length : end);
      if (this.#held + piece.length > this.#maxLineBytes) {
        this.#parts = [];
        this.#held = 0;
        throw new SluiceError(
          'TOO_LARGE',
          `expected a line of at most ${this.#maxLineBytes} bytes, found a longer one`,
        );
      }
      if (end === -1) {
        if (piece.length > 0) {
          // A copy: the caller may reuse its buffer.
          this.#parts.push(piece.slice());
          this.#held += piece.length;
        }
        return objects;
      }
      const line = this.#parts.length === 0 ? piece : this.#join(piece);
      this.#parts = [];
      this.#held = 0;
      from = end + 1;
      const object = parseLine(line);
      if (object !== undefined) objects.push(object);
    }
  }

  #join(last: Uint8Array): Uint8Array {
    const whole = new Uint8Array(this.#held + last.length);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    whole.set(last, at);
    return whole;
  }
}

/** An empty line is allowed and means nothing. */
function parseLine(line: Uint8Array): Record<string, unknown> | undefined {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(line).trim();
  } catch (cause) {
    throw new SluiceError('INPUT_INVALID', 'expected a line of UTF-8, found other bytes', { cause });
  }
  if (text === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new SluiceError('INPUT_INVALID', `expected a JSON object a line, found ${quote(text)}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SluiceError('INPUT_INVALID', `expected a JSON object a line, found ${quote(text)}`);
  }
  return value as Record<string, unknown>;
}

function quote(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}

/** One object as one line. JSON escapes line ends, so the line has exactly one. */
export function encodeLine(object: object): string {
  return `${JSON.stringify(object)}\n`;
}
