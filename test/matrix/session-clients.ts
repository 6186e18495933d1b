import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type { Outcome } from '@sluice/contract';
import { type Client, type Context, within } from './context.ts';
import { Http2Held } from './http2-clients.ts';

const UPGRADE = 'connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n';

/** Lines out and lines back, over whatever carries them. */
interface Echo {
  send(line: string): void;
  /** Resolves with the next line, rejects when it ends before. */
  next(): Promise<string>;
  /** Ends it in the protocol's own way. */
  finish(): void;
}

/** When it echoes, besides once before its client ends it. */
interface Talk {
  readonly before: boolean;
  readonly after: boolean;
}
const TALKS: Talk = { before: true, after: true };
/** Used before the order, and not a byte after it. */
const SILENT: Talk = { before: true, after: false };
/** Not a byte on it before its client ends it. */
const UNUSED: Talk = { before: false, after: false };

/** Echoes as `talk` says, and once more before its client ends it: then it has lived on. */
async function session(context: Context, echo: Echo, talk: Talk): Promise<boolean> {
  const once = async (): Promise<boolean> => {
    const id = context.tally.nextId();
    try {
      echo.send(id);
      const line = await within('an echo', echo.next());
      if (line === id) context.tally.ok(id);
      else context.tally.fail(id, `a wrong echo: ${line}`);
      return line === id;
    } catch (error) {
      context.tally.fail(id, (error as Error).message);
      return false;
    }
  };
  let whole = talk.before ? await once() : true;
  context.opened();
  await context.moments.told;
  if (talk.after) whole = (await once()) && whole;
  await context.moments.sessionsEnd;
  whole = (await once()) && whole;
  echo.finish();
  return whole;
}

const webSocketThat =
  (talk: Talk): Client =>
  async (context) => {
    const socket = await context.connect('http/1.1');
    const key = randomBytes(16).toString('base64');
    socket.write(`GET / HTTP/1.1\r\nhost: matrix\r\n${UPGRADE}sec-websocket-key: ${key}\r\n\r\n`);
    const [chunk] = (await within('the handshake', once(socket, 'data'))) as [Buffer];
    const end = chunk.indexOf('\r\n\r\n');
    if (!chunk.toString('latin1').startsWith('HTTP/1.1 101 ') || end < 0) throw new Error(`no upgrade: ${chunk}`);
    return (await session(context, frames(socket), talk)) ? 'lived-on' : 'cut';
  };

export const webSocket = webSocketThat(TALKS);
export const webSocketSilent = webSocketThat(SILENT);
/** Upgraded, and no frame sent. */
export const webSocketUnused = webSocketThat(UNUSED);

/** RFC 8441: the connection is told by GOAWAY, the session on it goes on. */
export const webSocketOverHttp2: Client = async (context) => {
  const on = await Http2Held.open(context);
  const request = { ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'http', ':path': '/' };
  // RFC 8441 has no key, but Envoy passes the request on as HTTP/1, and an upstream asks for one.
  const asHttp1 = { 'sec-websocket-version': '13', 'sec-websocket-key': randomBytes(16).toString('base64') };
  const stream = on.session.request({ ...request, ':authority': 'matrix', ...asHttp1 }, { endStream: false });
  stream.on('error', () => {});
  const [headers] = await within('the handshake', once(stream, 'response'));
  if (headers[':status'] !== 200) throw new Error(`no upgrade: ${headers[':status']}`);
  if (!(await session(context, frames(stream), TALKS))) return 'cut';
  return on.ending();
};

const tcpThat =
  (talk: Talk): Client =>
  async (context) => {
    const socket = await context.connect();
    let rest = '';
    const echo = reader(socket, (chunk) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      return lines;
    });
    const lines = { send: (line: string) => socket.write(`${line}\n`), next: echo, finish: () => socket.end() };
    return (await session(context, lines, talk)) ? 'lived-on' : 'cut';
  };

export const tcp = tcpThat(TALKS);
export const tcpSilent = tcpThat(SILENT);

/** Connected and never used. */
export const tcpUnused: Client = async (context): Promise<Outcome> => {
  const socket = await context.connect();
  context.opened();
  await context.moments.sessionsEnd;
  const lived = !socket.destroyed && socket.readyState === 'open';
  socket.end();
  return lived ? 'lived-on' : 'cut';
};

/** RFC 6455 text frames below 126 bytes, enough for an id. */
function frames(stream: Duplex): Echo {
  let rest: Buffer = Buffer.alloc(0);
  const next = reader(stream, (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const lines: string[] = [];
    while (rest.length >= 2 && rest.length >= 2 + (rest[1] ?? 0)) {
      const length = rest[1] ?? 0;
      if (((rest[0] ?? 0) & 0x0f) === 1) lines.push(rest.subarray(2, 2 + length).toString());
      rest = rest.subarray(2 + length);
    }
    return lines;
  });
  return {
    send: (line) => stream.write(frame(1, Buffer.from(line))),
    next,
    finish() {
      stream.write(frame(8, Buffer.from([0x03, 0xe8])));
      stream.end();
    },
  };
}

function frame(opcode: number, payload: Buffer): Buffer {
  const mask = randomBytes(4);
  const masked = payload.map((byte, i) => byte ^ (mask[i % 4] ?? 0));
  return Buffer.concat([Buffer.from([0x80 | opcode, 0x80 | payload.length]), mask, masked]);
}

/** The next line of a stream, each time it is called. */
function reader(stream: Duplex, split: (chunk: Buffer) => string[]): () => Promise<string> {
  const lines: string[] = [];
  let waiting: { resolve: (line: string) => void; reject: (error: Error) => void } | undefined;
  let ended: string | undefined;
  const serve = () => {
    if (waiting === undefined) return;
    const line = lines.shift();
    if (line !== undefined) waiting.resolve(line);
    else if (ended !== undefined) waiting.reject(new Error(`session ended: ${ended}`));
    else return;
    waiting = undefined;
  };
  const end = (why: string) => {
    ended ??= why;
    serve();
  };
  stream.on('data', (chunk: Buffer) => {
    lines.push(...split(chunk));
    serve();
  });
  stream.on('end', () => end('FIN'));
  stream.on('error', (error: Error) => end(error.message));
  stream.on('close', () => end('closed'));
  return () =>
    new Promise((resolve, reject) => {
      waiting = { resolve, reject };
      serve();
    });
}
