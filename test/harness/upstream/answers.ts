/**
 * What the upstream answers, a pure function of the request, so that a client knows the whole right answer beforehand.
 */
export const ID_HEADER = 'x-load-id';

const PATTERN = Buffer.from('abcdefghijklmnopqrstuvwxyz0123456789-'.repeat(2048));

/** Body of an answer: the id, a newline, `size` bytes of a fixed pattern. */
export function answerBody(id: string, size: number): Buffer {
  return Buffer.concat([Buffer.from(`${id}\n`), PATTERN.subarray(0, Math.min(size, PATTERN.length))]);
}

/** Path of a request: `size` bytes are asked for, after `delay` ms, the body spread over `slow` ms. */
export function askPath(ask: { size?: number; delay?: number; slow?: number }): string {
  return `/echo?size=${ask.size ?? 0}&delay=${ask.delay ?? 0}&slow=${ask.slow ?? 0}`;
}

export function readAsk(url: string): { size: number; delay: number; slow: number } {
  const query = new URL(url, 'http://upstream').searchParams;
  const number = (name: string) => Number(query.get(name) ?? 0) || 0;
  return { size: number('size'), delay: number('delay'), slow: number('slow') };
}

/** gRPC without generated code: messages are bytes of our own. */
const bytes = (value: Buffer): Buffer => value;
const method = (name: string, streaming: boolean) => ({
  path: `/sluice.load.Echo/${name}`,
  requestStream: streaming,
  responseStream: streaming,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
export const ECHO_SERVICE = { unary: method('Unary', false), bidi: method('Bidi', true) };
