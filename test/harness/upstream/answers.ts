/**
 * What the upstream answers, a pure function of the request, so that a client knows the whole right answer beforehand.
 */
export const ID_HEADER = 'x-load-id';

const PATTERN = Buffer.from('abcdefghijklmnopqrstuvwxyz0123456789-'.repeat(2048));

/** Body of an answer: the id, a newline, `size` bytes of a fixed pattern. */
export function answerBody(id: string, size: number): Buffer {
  return Buffer.concat([Buffer.from(`${id}\n`), PATTERN.subarray(0, Math.min(size, PATTERN.length))]);
}

/** What is held until the upstream's owner lets go: the whole answer, or the second half of its body. */
export type Hold = 'answer' | 'body';

export interface PathAsk {
  readonly size: number;
  readonly delay: number;
  readonly slow: number;
  readonly hold?: Hold;
}

/** Path of a request: `size` bytes are asked for, after `delay` ms, the body spread over `slow` ms. */
export function askPath(ask: Partial<PathAsk>): string {
  const hold = ask.hold === undefined ? '' : `&hold=${ask.hold}`;
  return `/echo?size=${ask.size ?? 0}&delay=${ask.delay ?? 0}&slow=${ask.slow ?? 0}${hold}`;
}

export function readAsk(url: string): PathAsk {
  const query = new URL(url, 'http://upstream').searchParams;
  const number = (name: string) => Number(query.get(name) ?? 0) || 0;
  const hold = query.get('hold');
  const held = hold === 'answer' || hold === 'body' ? { hold } : {};
  return { size: number('size'), delay: number('delay'), slow: number('slow'), ...held } as PathAsk;
}

/** gRPC without generated code: messages are bytes of our own. */
const bytes = (value: Buffer): Buffer => value;
const method = (name: string, requestStream: boolean, responseStream = requestStream) => ({
  path: `/sluice.load.Echo/${name}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
export const ECHO_SERVICE = {
  unary: method('Unary', false),
  bidi: method('Bidi', true),
  /** The message is `id`, a newline, a count; each of as many answers is `id`, a space, its number. The second half is held. */
  stream: method('Stream', false, true),
};
