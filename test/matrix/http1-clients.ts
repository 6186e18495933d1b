import type { Outcome } from '@sluice/contract';
import { check } from '../harness/load/http1.ts';
import { type Answer, Http1Connection, requestHead } from '../harness/load/http1-connection.ts';
import { answerBody, askPath, type Hold, ID_HEADER } from '../harness/upstream/answers.ts';
import { type Client, type Context, WAIT_MS, within } from './context.ts';

const SIZE = 600;
const HOST = 'matrix';

function head(id: string, hold?: Hold, size = SIZE): string {
  return requestHead({ id, path: askPath({ size, ...(hold && { hold }) }), host: HOST, idHeader: ID_HEADER });
}

/** Waits for the answer of a request already written, and counts it. Undefined: it failed. */
async function settle(context: Context, on: Http1Connection, id: string, right = answerBody(id, SIZE)) {
  try {
    const answer = await within('an answer', on.answer());
    judge(context, id, answer, right);
    return answer;
  } catch (error) {
    context.tally.fail(id, (error as Error).message);
    return undefined;
  }
}

function judge(context: Context, id: string, answer: Answer, right: Buffer): void {
  const wrong = check(id, 0, answer.status, answer.headers.get(ID_HEADER), answerBody(id, 0));
  if (wrong !== undefined) context.tally.fail(id, wrong);
  else if (!answer.body.equals(right)) context.tally.fail(id, `a wrong body of ${answer.body.length} bytes`);
  else context.tally.ok(id);
}

async function ask(context: Context, on: Http1Connection): Promise<Answer | undefined> {
  const id = context.tally.nextId();
  on.socket.write(head(id));
  return settle(context, on, id);
}

/** Asks on until the server says `close`, and tells how the connection ends. `last`: the answer that was awaited. */
async function ending(context: Context, on: Http1Connection, last: Answer | undefined): Promise<Outcome> {
  const until = Date.now() + WAIT_MS;
  while (!on.done && last !== undefined && Date.now() < until) last = await ask(context, on);
  if (last === undefined) return 'cut';
  const why = await within('the end of the connection', on.closed);
  if (why !== 'FIN') return 'cut';
  return last.headers.get('connection')?.toLowerCase() === 'close' ? 'connection-close' : 'closed';
}

/** One request, then silence. */
export const idle: Client = async (context) => {
  const on = await context.http1();
  await ask(context, on);
  context.opened();
  await context.moments.told;
  const why = await within('the end of a silent connection', on.closed, 2 * WAIT_MS);
  return why === 'FIN' ? 'closed' : 'cut';
};

/** Silent when the order comes; asks again within the grace. */
export const idleThenAsks: Client = async (context) => {
  const on = await context.http1();
  await ask(context, on);
  context.opened();
  await context.moments.told;
  return ending(context, on, await ask(context, on));
};

/** One request after the other, all through. */
export const busy: Client = async (context) => {
  const on = await context.http1();
  let last = await ask(context, on);
  context.opened();
  const until = Date.now() + WAIT_MS;
  while (!on.done && last !== undefined && Date.now() < until) last = await ask(context, on);
  return ending(context, on, last);
};

/** Three requests at once; the first is answered after the order. */
export const pipelined: Client = async (context) => {
  const on = await context.http1();
  await ask(context, on);
  const ids = [context.tally.nextId(), context.tally.nextId(), context.tally.nextId()];
  const [first = ''] = ids;
  on.socket.write(ids.map((id) => head(id, id === first ? 'answer' : undefined)).join(''));
  context.opened();
  await context.moments.told;
  context.release(first);
  let last: Answer | undefined;
  for (const id of ids) {
    // RFC 9112 9.3.2 and 9.6: after `close` nothing more is processed, and the client is to ask again elsewhere.
    if (on.done) context.tally.refuse(id);
    else last = await settle(context, on, id);
  }
  return ending(context, on, last);
};

/** A body of which a half is sent before the order. */
export const slowUpload: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  const body = answerBody(id, 60_000);
  on.socket.write(`${requestHead({ id, path: '/echo', host: HOST, idHeader: ID_HEADER, body })}`);
  on.socket.write(body.subarray(0, 30_000));
  context.opened();
  await context.moments.told;
  for (let at = 30_000; at < body.length; at += 10_000) {
    await new Promise((resolve) => on.socket.write(body.subarray(at, at + 10_000), resolve));
  }
  return ending(context, on, await settle(context, on, id, body));
};

/** A head of which a half is sent before the order. */
export const slowHead: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  const text = head(id);
  on.socket.write(text.slice(0, text.length / 2));
  context.opened();
  await context.moments.told;
  on.socket.write(text.slice(text.length / 2));
  return ending(context, on, await settle(context, on, id));
};

/** The answer's head has come before the order, its second half comes after it. */
export const slowDownload: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  on.socket.write(head(id, 'body', 60_000));
  await within('the head of an answer', new Promise((resolve) => on.socket.once('data', resolve)));
  context.opened();
  await context.moments.told;
  context.release(id);
  return ending(context, on, await settle(context, on, id, answerBody(id, 60_000)));
};

/** Body and trailers in chunks, on the way in and on the way out. */
export const trailers: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  const fields = `${ID_HEADER}: ${id}\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n`;
  on.socket.write(`POST /echo HTTP/1.1\r\nhost: ${HOST}\r\n${fields}\r\n5\r\nfirst\r\n`);
  context.opened();
  await context.moments.told;
  on.socket.write(`6\r\nsecond\r\n0\r\nx-end: ${id}\r\n\r\n`);
  const answer = await settle(context, on, id, Buffer.from('firstsecond'));
  if (answer !== undefined && answer.trailers.get('x-end') !== id) context.tally.demote(id, 'without its trailer');
  return ending(context, on, answer);
};

/** `100 Continue` has come before the order, the body is sent after it. */
export const expectContinue: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  const body = answerBody(id, SIZE);
  const text = requestHead({ id, path: '/echo', host: HOST, idHeader: ID_HEADER, body });
  on.socket.write(text.replace('\r\n\r\n', '\r\nexpect: 100-continue\r\n\r\n'));
  const interim = await within('100 Continue', on.answer());
  if (interim.status !== 100) context.tally.fail(id, `expected 100, found ${interim.status}`);
  context.opened();
  await context.moments.told;
  on.socket.write(body);
  return ending(context, on, await settle(context, on, id, body));
};

/** HTTP/1.0 with keep-alive, the answer after the order. */
export const http10: Client = async (context) => {
  const on = await context.http1();
  const id = context.tally.nextId();
  const text = head(id, 'answer').replace('HTTP/1.1', 'HTTP/1.0');
  on.socket.write(text.replace('\r\n\r\n', '\r\nconnection: keep-alive\r\n\r\n'));
  context.opened();
  await context.moments.told;
  context.release(id);
  return ending(context, on, await settle(context, on, id));
};

/** Connected, its handshake with that ALPN done, and never a byte sent. */
const unusedOf =
  (alpn: 'h2' | 'http/1.1'): Client =>
  async (context) => {
    const on = new Http1Connection(await context.connect(alpn));
    context.opened();
    await context.moments.told;
    const why = await within('the end of an unused connection', on.closed, 2 * WAIT_MS);
    return why === 'FIN' ? 'closed' : 'cut';
  };

export const unused = unusedOf('http/1.1');
export const unusedHttp2 = unusedOf('h2');
