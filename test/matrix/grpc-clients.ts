import { ECHO_SERVICE } from '../harness/upstream/answers.ts';
import { type Client, type Context, WAIT_MS, within } from './context.ts';
import { Http2Held, type Http2Stream } from './http2-clients.ts';

/** gRPC written out, because a gRPC library repeats a call behind our back when GOAWAY comes. */
function call(on: Http2Held, id: string, path: string, endWith?: string): Http2Stream {
  const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
  const stream = on.stream(id, headers, false);
  if (endWith !== undefined) stream.stream.end(message(endWith));
  return stream;
}

function message(text: string): Buffer {
  const body = Buffer.from(text);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

function messagesIn(body: Buffer): string[] {
  const found: string[] = [];
  for (let at = 0; at + 5 <= body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    found.push(body.subarray(at + 5, end).toString());
    at = end;
  }
  return found;
}

/** The call is right when its status is 0 and each message came once, in order. */
async function settle(context: Context, stream: Http2Stream, right: readonly string[]): Promise<void> {
  if (!(await stream.settle('any'))) return;
  const found = messagesIn(stream.body);
  const status = String(stream.trailers['grpc-status']);
  if (status !== '0') context.tally.demote(stream.id, `grpc-status ${status}`);
  else if (found.join() !== right.join())
    context.tally.demote(stream.id, `${found.length} of ${right.length} messages`);
}

export const unary: Client = async (context) => {
  const on = await Http2Held.open(context);
  const once = async () => {
    const id = context.tally.nextId();
    await settle(context, call(on, id, ECHO_SERVICE.unary.path, id), [id]);
  };
  await once();
  context.opened();
  const until = Date.now() + WAIT_MS;
  while (on.goaway === undefined && !on.session.closed && Date.now() < until) await once();
  return on.ending();
};

/** The second half of its messages comes after GOAWAY. */
export const serverStream: Client = async (context) => {
  const on = await Http2Held.open(context);
  const id = context.tally.nextId();
  const stream = call(on, id, ECHO_SERVICE.stream.path, `${id}\n20`);
  await stream.head();
  context.opened();
  await within('GOAWAY', on.told);
  await context.moments.told;
  context.release(id);
  await settle(
    context,
    stream,
    Array.from({ length: 20 }, (_, n) => `${id} ${n}`),
  );
  return on.ending();
};

/** Messages both ways, before GOAWAY and after it; one id for the call, one for each message. */
export const bidi: Client = async (context) => {
  const on = await Http2Held.open(context);
  const ids = Array.from({ length: 4 }, () => context.tally.nextId());
  const [first = ''] = ids;
  const stream = call(on, first, ECHO_SERVICE.bidi.path);
  stream.stream.write(message(first));
  await stream.head();
  context.opened();
  await within('GOAWAY', on.told);
  await context.moments.told;
  for (const id of ids.slice(1)) stream.stream.write(message(id));
  stream.stream.end();
  await settle(context, stream, ids);
  const echoed = new Set(messagesIn(stream.body));
  for (const id of ids.slice(1)) {
    if (echoed.has(id)) context.tally.ok(id);
    else context.tally.fail(id, 'never echoed');
  }
  return on.ending();
};
