import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import {
  type ControllerMessage,
  encodeLine,
  type Hello,
  LINK_PATH,
  LINK_PROTOCOL,
  NdjsonDecoder,
} from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { type AgentLink, createLink, type LinkState } from './link.ts';

type Line = Record<string, unknown> & { type: string };

/** A queue that a test can wait on. */
class Inbox<T> {
  #items: T[] = [];
  #waiting: ((item: T) => void)[] = [];
  push(item: T): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#items.push(item);
    else next(item);
  }
  next(): Promise<T> {
    const item = this.#items.shift();
    return item === undefined ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve(item);
  }
}

class FakeController {
  readonly sockets = new Inbox<Duplex>();
  readonly lines = new Inbox<Line>();
  readonly server: Server = createServer((_, response) => response.writeHead(404).end());
  constructor() {
    this.server.on('upgrade', (request, socket) => {
      expect(request.url).toBe(LINK_PATH);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${LINK_PROTOCOL}\r\n\r\n`);
      const decoder = new NdjsonDecoder();
      socket.on('data', (chunk: Buffer) => {
        for (const line of decoder.push(chunk)) if (line.type !== 'ping') this.lines.push(line as Line);
      });
      socket.on('error', () => undefined);
      this.sockets.push(socket);
    });
  }
  async listen(port = 0): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(port, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }
}

const hello = (): Hello => ({
  type: 'hello',
  v: 1,
  proxy: 'p',
  slot: '1',
  agentVersion: '0',
  identity: {},
  epochs: [],
  versions: [],
});

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function controller(): FakeController {
  const fake = new FakeController();
  cleanups.push(() => {
    fake.server.close();
    fake.server.closeAllConnections();
  });
  return fake;
}

function link(urls: string[]): {
  link: AgentLink;
  states: Inbox<LinkState>;
  messages: Inbox<ControllerMessage>;
  logs: Inbox<string>;
  stop: AbortController;
} {
  const stop = new AbortController();
  cleanups.push(() => stop.abort());
  const states = new Inbox<LinkState>();
  const messages = new Inbox<ControllerMessage>();
  const logs = new Inbox<string>();
  const made = createLink({
    urls,
    hello,
    onMessage: (m) => {
      if (m.type === 'abort') throw new Error('a handler that fails');
      messages.push(m);
    },
    onState: (s) => states.push(s),
    log: (_, message) => logs.push(message),
    signal: stop.signal,
    pingMs: 200,
    backoffFirstMs: 10,
    backoffMaxMs: 50,
  });
  return { link: made, states, messages, logs, stop };
}

const welcome = encodeLine({ type: 'welcome', v: 1 });

test('says hello first and is connected after the welcome', async () => {
  const fake = controller();
  const { link: made, states } = link([await fake.listen()]);
  made.send({ type: 'epochs', epochs: [] });
  const socket = await fake.sockets.next();
  expect((await fake.lines.next()).type).toBe('hello');
  expect(made.connected).toBe(false);
  socket.write(welcome);
  expect((await states.next()).connected).toBe(true);
  expect((await fake.lines.next()).type).toBe('epochs');
});

test('tries the other controllers in turn, and the first one has to speak the protocol', async () => {
  const other = createServer((_, response) => response.end('hello'));
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  cleanups.push(() => other.close());
  const fake = controller();
  const good = await fake.listen();
  const { states } = link([`http://127.0.0.1:${(other.address() as AddressInfo).port}`, 'http://127.0.0.1:1', good]);
  (await fake.sockets.next()).write(welcome);
  expect((await states.next()).error).toContain('expected HTTP 101, found 200');
  expect((await states.next()).error).toContain('ECONNREFUSED');
  expect(await states.next()).toMatchObject({ connected: true, url: good });
});

test('keeps facts while away, replaces states, and says hello again', async () => {
  const fake = controller();
  const { link: made, states } = link([await fake.listen()]);
  const first = await fake.sockets.next();
  first.write(welcome);
  expect((await states.next()).connected).toBe(true);
  await fake.lines.next();
  first.destroy();
  expect((await states.next()).connected).toBe(false);
  made.send({ type: 'crashed', epoch: 1, at: 1 });
  for (const epoch of [1, 2, 3]) made.send({ type: 'epochs', epochs: [{ epoch } as never] });
  made.send({ type: 'checked', requestId: 'r', ok: true, checks: [] });
  made.send({ type: 'crashed', epoch: 2, at: 2 });
  const second = await fake.sockets.next();
  expect((await fake.lines.next()).type).toBe('hello');
  second.write(welcome);
  const told = [await fake.lines.next(), await fake.lines.next(), await fake.lines.next(), await fake.lines.next()];
  expect(told.map((l) => l.type)).toEqual(['crashed', 'epochs', 'checked', 'crashed']);
  expect(told[1]).toMatchObject({ epochs: [{ epoch: 3 }] });
});

test('a fact written just before the loss is told again', async () => {
  const fake = controller();
  const { link: made, states } = link([await fake.listen()]);
  const first = await fake.sockets.next();
  first.write(welcome);
  await states.next();
  await fake.lines.next();
  made.send({ type: 'crashed', epoch: 7, at: 1 });
  expect((await fake.lines.next()).type).toBe('crashed');
  first.destroy();
  (await fake.sockets.next()).write(welcome);
  expect((await fake.lines.next()).type).toBe('hello');
  expect(await fake.lines.next()).toMatchObject({ type: 'crashed', epoch: 7 });
});

test('a fact written into a link that was dead already is told again', async () => {
  const fake = controller();
  const { link: made, states } = link([await fake.listen()]);
  const first = await fake.sockets.next();
  // Between two looks of the link, so that the silence lasts for longer than three pings.
  await delay(50);
  first.write(welcome);
  await states.next();
  await fake.lines.next();
  // The last that is heard of this side. That nothing more comes is noticed after more than three pings.
  made.send({ type: 'crashed', epoch: 7, at: 1 });
  expect((await fake.lines.next()).type).toBe('crashed');
  expect((await states.next()).error).toContain('silent');
  (await fake.sockets.next()).write(welcome);
  expect((await fake.lines.next()).type).toBe('hello');
  expect(await fake.lines.next()).toMatchObject({ type: 'crashed', epoch: 7 });
});

test('bad lines, unknown types and a failing handler do not end the link', async () => {
  const fake = controller();
  const { link: made, states, messages } = link([await fake.listen()]);
  const socket = await fake.sockets.next();
  socket.write(welcome);
  await states.next();
  socket.write('{"type":"reset"}\n{"type":"from-the-future","x":1}\n{"type":7}\n{"type":"constructor"}\n');
  socket.write(encodeLine({ type: 'abort', upgradeId: 'u' }));
  socket.write(encodeLine({ type: 'reset', upgradeId: 'u', epoch: 3 }));
  expect(await messages.next()).toEqual({ type: 'reset', upgradeId: 'u', epoch: 3 });
  expect(made.connected).toBe(true);
});

test('a line without an end, or no JSON at all, makes a new connection', async () => {
  const fake = controller();
  const { states } = link([await fake.listen()]);
  const first = await fake.sockets.next();
  first.write(welcome);
  await states.next();
  first.write('not json\n');
  expect((await states.next()).error).toContain('expected a JSON object');
  const second = await fake.sockets.next();
  second.write(welcome);
  await states.next();
  second.write(Buffer.alloc(5 * 1024 * 1024, 0x20));
  expect((await states.next()).error).toContain('expected a line of at most');
  await fake.sockets.next();
});

test('a silent controller is given up after three times the ping interval', async () => {
  const fake = controller();
  const { states } = link([await fake.listen()]);
  (await fake.sockets.next()).write(welcome);
  expect((await states.next()).connected).toBe(true);
  expect((await states.next()).error).toContain('silent');
  await fake.sockets.next();
});

test('a refusal is named, and tried again later', async () => {
  const fake = controller();
  const { states } = link([await fake.listen()]);
  const socket = await fake.sockets.next();
  socket.write(encodeLine({ type: 'refused', code: 'SLUICE_IDENTITY_REFUSED', message: 'no such token' }));
  expect((await states.next()).error).toContain('no such token');
  await fake.sockets.next();
});

test('goes where it is sent, before and after the welcome, and says hello there', async () => {
  const [service, owner, next] = [controller(), controller(), controller()];
  const urls = { service: await service.listen(), owner: await owner.listen(), next: await next.listen() };
  const { link: made, states } = link([urls.service]);
  (await service.sockets.next()).write(encodeLine({ type: 'moved', url: urls.owner }));
  const socket = await owner.sockets.next();
  expect((await owner.lines.next()).type).toBe('hello');
  socket.write(welcome);
  expect((await states.next()).error).toContain('belongs to');
  expect(await states.next()).toMatchObject({ connected: true, url: urls.owner });
  made.send({ type: 'crashed', epoch: 7, at: 1 });
  expect((await owner.lines.next()).type).toBe('crashed');
  socket.write(encodeLine({ type: 'moved', url: urls.next }));
  (await next.sockets.next()).write(welcome);
  // Whether the first one has read it nobody knows: told again.
  expect((await next.lines.next()).type).toBe('hello');
  expect(await next.lines.next()).toMatchObject({ type: 'crashed', epoch: 7 });
});

test('goes back to its configured address when the one it was sent to is away, or goes away', async () => {
  const [service, owner] = [controller(), controller()];
  const [at, moved] = [await service.listen(), await owner.listen()];
  const { states } = link([at]);
  (await service.sockets.next()).write(encodeLine({ type: 'moved', url: 'http://127.0.0.1:1' }));
  await states.next();
  expect((await states.next()).error).toContain('ECONNREFUSED');
  (await service.sockets.next()).write(encodeLine({ type: 'moved', url: moved }));
  const socket = await owner.sockets.next();
  socket.write(welcome);
  await states.next();
  expect(await states.next()).toMatchObject({ connected: true, url: moved });
  socket.destroy();
  (await service.sockets.next()).write(welcome);
  await states.next();
  expect(await states.next()).toMatchObject({ connected: true, url: at });
});

test('two controllers that send it to each other are followed a few times in a row only', async () => {
  const [a, b] = [controller(), controller()];
  const [urlA, urlB] = [await a.listen(), await b.listen()];
  const { stop } = link([urlA]);
  let asked = 0;
  const serve = async (from: FakeController, other: string): Promise<void> => {
    for (;;) {
      (await from.sockets.next()).write(encodeLine({ type: 'moved', url: other }));
      asked++;
    }
  };
  void serve(a, urlB);
  const again = Promise.withResolvers<void>();
  // A, B, A, B, A; then it begins anew with A.
  const seen: string[] = [];
  const watch = (name: string) => {
    seen.push(name);
    if (seen.length === 6) again.resolve();
  };
  a.server.on('upgrade', () => watch('a'));
  b.server.on('upgrade', () => watch('b'));
  void serve(b, urlA);
  await again.promise;
  expect(seen).toEqual(['a', 'b', 'a', 'b', 'a', 'a']);
  stop.abort();
  expect(asked).toBeGreaterThan(4);
});

test('an address that is none, or that gives up encryption, is not followed', async () => {
  const fake = controller();
  const { states } = link([await fake.listen()]);
  const socket = await fake.sockets.next();
  socket.write(welcome);
  await states.next();
  socket.write(encodeLine({ type: 'moved', url: 'ftp://elsewhere' }));
  expect((await states.next()).error).toContain('ftp://elsewhere');
  await fake.sockets.next();
});

test('its signal ends it', async () => {
  const fake = controller();
  const { link: made, states, stop } = link([await fake.listen()]);
  (await fake.sockets.next()).write(welcome);
  await states.next();
  stop.abort();
  await made.done;
  expect(made.connected).toBe(false);
});
