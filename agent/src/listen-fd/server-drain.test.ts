import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { ServerDrain } from './server-drain.ts';

const servers: net.Server[] = [];
const sockets: net.Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) net.Server.prototype.close.call(server);
});

async function start(server: net.Server): Promise<{ drain: ServerDrain; connect: () => RawConnection }> {
  const drain = new ServerDrain(server);
  servers.push(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { drain, connect: () => new RawConnection(port) };
}

/** Bytes in and out, and a wait for what is to come. */
class RawConnection {
  readonly socket: net.Socket;
  readonly closed: Promise<unknown>;
  #parts: Buffer[] = [];

  constructor(port: number) {
    this.socket = net.connect({ port, host: '127.0.0.1' });
    sockets.push(this.socket);
    this.socket.on('error', () => {});
    this.socket.on('data', (chunk) => {
      this.#parts.push(chunk);
    });
    this.closed = once(this.socket, 'end');
  }

  /** All that has come. */
  get data(): Buffer {
    const whole = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    this.#parts = [whole];
    return whole;
  }

  forget(): void {
    this.#parts = [];
  }

  async until(is: (text: string) => boolean): Promise<string> {
    while (!is(this.data.toString('latin1'))) await once(this.socket, 'data');
    return this.data.toString('latin1');
  }

  /** HTTP/2 frames that have come, whole ones. */
  frames(): { type: number; flags: number; stream: number; payload: Buffer }[] {
    const { data } = this;
    const frames = [];
    for (let at = 0; at + 9 <= data.length; ) {
      const length = data.readUIntBE(at, 3);
      if (at + 9 + length > data.length) break;
      frames.push({
        type: data[at + 3] as number,
        flags: data[at + 4] as number,
        stream: data.readUInt32BE(at + 5),
        payload: data.subarray(at + 9, at + 9 + length),
      });
      at += 9 + length;
    }
    return frames;
  }

  async frame(is: (frame: ReturnType<RawConnection['frames']>[number]) => boolean) {
    for (;;) {
      const found = this.frames().find(is);
      if (found) return found;
      await once(this.socket, 'data');
    }
  }
}

const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const ACK = 1;

function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** GET http://x/ by HPACK's static table; END_HEADERS and END_STREAM. */
const get = (stream: number) => frame(1, 0x05, stream, Buffer.from([0x82, 0x86, 0x84, 0x01, 0x01, 0x78]));
const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const GET = 'GET / HTTP/1.1\r\nhost: x\r\n\r\n';

it('rehearses: one in four HTTP/1 connections is told to leave from the first, and none later', async () => {
  const { drain, connect } = await start(http.createServer((_, response) => response.end('x')));
  const ask = async (): Promise<boolean> => {
    const one = connect();
    one.socket.write(GET);
    return (await one.until((text) => text.endsWith('\r\n\r\nx'))).toLowerCase().includes('connection: close');
  };
  drain.rehearse(true);
  const told = [];
  for (let i = 0; i < 8; i++) told.push(await ask());
  drain.rehearse(false);
  expect(told.filter(Boolean)).toHaveLength(2);
  expect(await ask()).toBe(false);
});

describe('HTTP/2', () => {
  const serve = () =>
    start(
      http2.createServer((_, response) => {
        response.end('served');
      }),
    );

  it('serves a stream that the client began before it saw the notice', async () => {
    const { drain, connect } = await serve();
    const client = connect();
    client.socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]));
    await client.frame(({ type }) => type === SETTINGS);
    client.socket.write(Buffer.concat([frame(SETTINGS, ACK, 0), get(1)]));
    await client.frame(({ type, stream }) => type === 0 && stream === 1);
    const empty = drain.begin();
    const ping = await client.frame(({ type, flags }) => type === PING && flags === 0);
    const notice = client.frames().find(({ type }) => type === GOAWAY);
    expect(notice?.payload.readUInt32BE(0)).toBe(0x7fff_ffff);
    // On its way while the notice was: the client answers PING after it.
    client.socket.write(Buffer.concat([get(3), get(5), frame(PING, ACK, 0, ping.payload)]));
    for (const id of [3, 5]) {
      expect(
        (
          await client.frame(({ type, stream, payload }) => type === 0 && stream === id && payload.length > 0)
        ).payload.toString(),
      ).toBe('served');
    }
    await client.closed;
    const last = client.frames().filter(({ type }) => type === GOAWAY);
    expect(last.at(-1)?.payload.readUInt32BE(0)).toBe(5);
    client.socket.end();
    await empty;
    expect(drain.size).toBe(0);
  });

  it('ends an idle session, and waits for SETTINGS of one that has just begun', async () => {
    const { drain, connect } = await serve();
    const client = connect();
    await once(client.socket, 'connect');
    await expect.poll(() => drain.size).toBe(1);
    const empty = drain.begin();
    client.socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]));
    await client.frame(({ type }) => type === SETTINGS);
    client.socket.write(frame(SETTINGS, ACK, 0));
    const ping = await client.frame(({ type, flags }) => type === PING && flags === 0);
    expect(client.frames()[0]?.type).toBe(SETTINGS);
    client.socket.write(frame(PING, ACK, 0, ping.payload));
    await client.closed;
    client.socket.end();
    await empty;
  });

  it('waits with the notice for a client that does not read, and the whole answer comes before it', async () => {
    const size = 20_000_000;
    const { drain, connect } = await start(
      http2.createServer((_, response) => {
        response.end(Buffer.alloc(size));
      }),
    );
    const client = connect();
    const wide = frame(SETTINGS, 0, 0, Buffer.from([0, 4, 0x7f, 0xff, 0xff, 0xff]));
    const room = frame(8, 0, 0, Buffer.from([0x7f, 0, 0, 0]));
    client.socket.write(Buffer.concat([PREFACE, wide, frame(SETTINGS, ACK, 0), room, get(1)]));
    await client.frame(({ type, stream }) => type === 0 && stream === 1);
    client.socket.pause();
    const empty = drain.begin();
    expect(drain.connections()).toMatchObject([{ inFlight: 1 }]);
    // Longer than the first looks for a free moment; there is none, and nobody's write is in between.
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.socket.resume();
    const ping = await client.frame(({ type, flags }) => type === PING && flags === 0);
    const frames = client.frames();
    const body = frames.filter(({ type }) => type === 0).reduce((sum, { payload }) => sum + payload.length, 0);
    expect(body).toBe(size);
    expect(frames.find(({ type }) => type === GOAWAY)?.payload.readUInt32BE(0)).toBe(0x7fff_ffff);
    client.socket.write(frame(PING, ACK, 0, ping.payload));
    await client.closed;
    client.socket.end();
    await empty;
  });

  it('keeps the session of a client that answers no PING', async () => {
    const { drain, connect } = await serve();
    const client = connect();
    client.socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0), frame(SETTINGS, ACK, 0), get(1)]));
    await client.frame(({ type, stream }) => type === 0 && stream === 1);
    void drain.begin();
    await client.frame(({ type, flags }) => type === PING && flags === 0);
    expect(drain.connections()).toMatchObject([{ protocol: 'http2', inFlight: 0 }]);
  });
});

describe('HTTP/1', () => {
  it('tells one after the other, the oldest first, when it has time', async () => {
    const { drain, connect } = await start(http.createServer((_, response) => response.end('served')));
    const clients: RawConnection[] = [];
    for (let n = 0; n < 4; n++) {
      const client = connect();
      client.socket.write(GET);
      await client.until((text) => text.endsWith('served'));
      clients.push(client);
    }
    const told: number[] = [];
    const empty = drain.begin(200);
    while (told.length < clients.length) {
      for (const [n, client] of clients.entries()) {
        if (told.includes(n)) continue;
        client.forget();
        client.socket.write(GET);
        if ((await client.until((text) => text.endsWith('served'))).includes('connection: close')) told.push(n);
      }
    }
    expect(told).toEqual([0, 1, 2, 3]);
    await empty;
  });

  it('tells whoever waits long for an answer before its turn', async () => {
    const waiting: http.ServerResponse[] = [];
    const { drain, connect } = await start(http.createServer((_, response) => waiting.push(response)));
    const [first, second] = [connect(), connect()];
    first.socket.write(GET);
    await expect.poll(() => waiting.length).toBe(1);
    second.socket.write(GET);
    await expect.poll(() => waiting.length).toBe(2);
    void drain.begin(3_600_000);
    await expect.poll(() => waiting[1]?.getHeader('connection')).toBe('close');
    for (const response of waiting) response.end('served');
    for (const client of [first, second]) await client.closed;
  });

  it('says close on the last of pipelined responses, whether they began before it was told or after', async () => {
    const waiting: http.ServerResponse[] = [];
    const { drain, connect } = await start(http.createServer((_, response) => waiting.push(response)));
    const client = connect();
    client.socket.write(GET + GET);
    await expect.poll(() => waiting.length).toBe(2);
    void drain.begin();
    client.socket.write(GET + GET);
    await expect.poll(() => waiting.length).toBe(4);
    for (const [n, response] of waiting.entries()) response.end(`answer ${n};`);
    await client.closed;
    const text = client.data.toString('latin1');
    expect(text.match(/answer \d;/g)).toEqual(['answer 0;', 'answer 1;', 'answer 2;', 'answer 3;']);
    expect(text.match(/connection: close/gi)).toHaveLength(1);
  });

  it('says close on the response in flight and on the next of an idle connection; a silent one is left alone', async () => {
    const waiting: http.ServerResponse[] = [];
    const { drain, connect } = await start(
      http.createServer((request, response) => {
        if (request.url === '/wait') waiting.push(response);
        else response.end('served');
      }),
    );
    const [busy, idle, silent] = [connect(), connect(), connect()];
    for (const client of [idle, silent]) client.socket.write(GET);
    busy.socket.write(GET.replace('/', '/wait'));
    for (const client of [idle, silent]) {
      expect(await client.until((text) => text.endsWith('served'))).toContain('Connection: keep-alive');
    }
    await expect.poll(() => waiting.length).toBe(1);
    void drain.begin();
    expect(
      drain
        .connections()
        .map(({ protocol, inFlight }) => `${protocol} ${inFlight}`)
        .sort(),
    ).toEqual(['http1 0', 'http1 0', 'http1 1']);
    waiting[0]?.end('at last');
    expect(await busy.until((text) => text.endsWith('at last'))).toMatch(/connection: close/i);
    await busy.closed;
    idle.forget();
    idle.socket.write(GET);
    expect(await idle.until((text) => text.endsWith('served'))).toMatch(/connection: close/i);
    await idle.closed;
    await expect.poll(() => drain.size).toBe(1);
    expect(silent.socket.readyState).toBe('open');
    expect(drain.connections()).toMatchObject([{ peer: `127.0.0.1:${silent.socket.localPort}`, inFlight: 0 }]);
  });
});
