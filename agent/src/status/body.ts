import type { IncomingMessage } from 'node:http';
import { SluiceError } from '@sluice/contract';

/**
 * Request bodies held in memory at once, over all connections: whoever sends, and however many, the agent stays small.
 */
export class BodyBudget {
  readonly #limit: number;
  #held = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get held(): number {
    return this.#held;
  }

  /**
   * The whole body. Throws TOO_LARGE past `max`, or when the bodies of all requests together are past the budget; what was
   * read until then is let go, and the connection is to be closed.
   */
  async read(request: IncomingMessage, max: number): Promise<Buffer> {
    const said = Number(request.headers['content-length'] ?? 0);
    if (said > max) throw tooLarge(max, `${said} announced`);
    const chunks: Buffer[] = [];
    let size = 0;
    try {
      for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        size += chunk.length;
        this.#held += chunk.length;
        if (size > max) throw tooLarge(max, `${size} and more`);
        if (this.#held > this.#limit) throw tooLarge(this.#limit, 'more in all requests together');
        chunks.push(chunk);
      }
      return Buffer.concat(chunks, size);
    } finally {
      this.#held -= size;
    }
  }
}

function tooLarge(max: number, found: string): SluiceError {
  return new SluiceError('TOO_LARGE', `expected a body of at most ${max} bytes, found ${found}`);
}
