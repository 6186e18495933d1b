import { once } from 'node:events';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { listenFds } from './listeners.ts';
import { heldSockets, socketFds } from './proc-fd.ts';
import { parseMessages, portFilter, type TcpSocket, tcpSockets } from './sock-diag.ts';
import { tcpTable, tcpTableFromProc } from './tcp-table.ts';

/** All but LISTEN, TIME_WAIT, SYN_SENT and SYN_RECV. */
const OPEN = [1, 4, 5, 8, 9, 11];
const ESTABLISHED = 1;
const FIN_WAIT2 = 5;
const TIME_WAIT = 6;
const CLOSE_WAIT = 8;
const LISTEN = 10;

const sockets: Socket[] = [];
const servers: net.Server[] = [];

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await Promise.all(servers.splice(0).map((server) => new Promise((done) => server.close(done))));
});

async function listen(options: net.ListenOptions): Promise<number> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => sockets.push(socket.on('error', () => {})));
  servers.push(server.listen({ backlog: 4_096, ...options }));
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

const serverOn = (port: number) => servers.find((each) => (each.address() as AddressInfo).port === port) as net.Server;

/** One at a time, so that the two ends are of one connection. */
async function connect(port: number, host: string): Promise<{ client: Socket; accepted: Socket }> {
  const server = serverOn(port);
  const client = net.connect({ port, host, allowHalfOpen: true }).on('error', () => {});
  sockets.push(client);
  const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
  return { client, accepted };
}

/** `count` connections that the server has accepted. */
async function connectMany(port: number, host: string, count: number): Promise<void> {
  const server = serverOn(port);
  const accepted = new Promise<void>((resolve) => {
    let left = count;
    server.on('connection', () => --left === 0 && resolve());
  });
  for (let i = 0; i < count; i++) sockets.push(net.connect({ port, host }).on('error', () => {}));
  await accepted;
}

/** A server that ends each connection at once is left with them in TIME_WAIT. `count` of them, some at a time. */
async function passBy(count: number): Promise<number> {
  const server = net.createServer((socket) =>
    socket
      .on('error', () => {})
      .resume()
      .end(),
  );
  servers.push(server.listen({ port: 0, host: '127.0.0.1' }));
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let left = count;
  const passOne = async () => {
    while (left-- > 0) await once(net.connect({ port, host: '127.0.0.1' }).resume(), 'close');
  };
  await Promise.all(Array.from({ length: 20 }, passOne));
  return port;
}

const sorted = (found: readonly TcpSocket[]) =>
  [...found].sort((a, b) => a.inode - b.inode || a.peer.localeCompare(b.peer));

/** What both ways say of a port, having said the same. */
function agreed(port: number, states: readonly number[]): TcpSocket[] {
  // The kernel may say a line of that file twice when sockets of others come and go between two reads of it.
  const lines = tcpTableFromProc(process.pid, { states, ports: [port] });
  const text = sorted([...new Map(lines.map((one) => [`${one.inode} ${one.local} ${one.peer}`, one])).values()]);
  expect(sorted(tcpSockets(states, [port]))).toEqual(text);
  expect(sorted(tcpTable(process.pid, { states, ports: [port] }))).toEqual(text);
  return text;
}

describe('sock_diag beside /proc/net/tcp', () => {
  it.each([
    ['127.0.0.1', '127.0.0.1', '127.0.0.1'],
    ['::1', '::1', '[::1]'],
    ['::', '127.0.0.1', '[::ffff:7f00:1]'],
  ])('lists what is accepted on %s from %s', async (host, from, shown) => {
    const port = await listen({ port: 0, host }).catch(() => undefined);
    if (port === undefined) return; // no IPv6 on this machine
    const { client } = await connect(port, from);
    await connect(port, from);
    const found = agreed(port, [...OPEN, LISTEN]);
    expect(found.map(({ state }) => state).sort((a, b) => a - b)).toEqual([ESTABLISHED, ESTABLISHED, LISTEN]);
    const accepted = found.filter(({ state }) => state === ESTABLISHED);
    expect(accepted.map(({ local }) => local)).toEqual([`${shown}:${port}`, `${shown}:${port}`]);
    expect(accepted.map(({ peer }) => peer)).toContain(`${shown}:${client.localPort}`);
    expect(accepted.every(({ inode }) => heldSockets(process.pid).has(inode))).toBe(true);
  });

  it('lists those of several ports by one dump, and of the families that are asked for', async () => {
    const ports = [
      await listen({ port: 0, host: '127.0.0.1' }),
      await listen({ port: 0, host: '127.0.0.1' }),
      await listen({ port: 0, host: '127.0.0.1' }),
    ];
    for (const port of ports) await connect(port, '127.0.0.1');
    for (const some of [ports, ports.slice(1), [...ports, 1, 65_535], [ports[2] as number, ports[0] as number]]) {
      const each = some.flatMap((port) => tcpSockets([...OPEN, LISTEN], [port]));
      expect(each.length).toBeGreaterThanOrEqual(4);
      expect(sorted(tcpSockets([...OPEN, LISTEN], some))).toEqual(sorted(each));
      expect(sorted(tcpSockets([...OPEN, LISTEN], some, ['ipv4']))).toEqual(sorted(each));
      expect(tcpSockets([...OPEN, LISTEN], some, ['ipv6'])).toEqual([]);
    }
  });

  it('filters by more ports than one byte of distance could pass over', async () => {
    const port = await listen({ port: 0, host: '127.0.0.1' });
    const many = [...Array.from({ length: 400 }, (_, i) => i + 1), port];
    expect(portFilter(many).length).toBe(4 + 20 * many.length - 4);
    expect(tcpSockets([LISTEN], many).map(({ local }) => local)).toContain(`127.0.0.1:${port}`);
  });

  it('tells a connection that its client half closed, and its client, from an open one', async () => {
    const port = await listen({ port: 0, host: '127.0.0.1' });
    const { client, accepted } = await connect(port, '127.0.0.1');
    client.end();
    await once(accepted.resume(), 'end');
    expect(agreed(port, OPEN)).toMatchObject([{ state: CLOSE_WAIT, local: `127.0.0.1:${port}` }]);
    const peer = `127.0.0.1:${port}`;
    // Others on this machine may have a connection from that port too, to elsewhere.
    expect(agreed(client.localPort as number, OPEN).find((socket) => socket.peer === peer)?.state).toBe(FIN_WAIT2);
  });

  it('tells a connection whose client does not take what was written to it', async () => {
    const port = await listen({ port: 0, host: '127.0.0.1' });
    const { client, accepted } = await connect(port, '127.0.0.1');
    await connect(port, '127.0.0.1');
    client.pause();
    const written = 16 * 1024 * 1024; // more than the kernel takes for both ends
    accepted.write(Buffer.alloc(written));
    await expect.poll(() => agreed(port, OPEN).filter(({ unsent }) => unsent)).toHaveLength(1);
    expect(agreed(port, [LISTEN]).map(({ unsent }) => unsent)).toEqual([false]);
    let taken = 0;
    client.on('data', (chunk) => {
      taken += chunk.length;
    });
    client.resume();
    await expect.poll(() => taken, { timeout: 5_000 }).toBe(written);
    await expect.poll(() => agreed(port, OPEN).some(({ unsent }) => unsent)).toBe(false);
  });

  it('leaves out thousands in TIME_WAIT, and finds the one listener among them', async () => {
    const port = await passBy(2_000);
    expect(tcpTableFromProc(process.pid, { states: [TIME_WAIT], ports: [port] }).length).toBeGreaterThan(1_000);
    expect(agreed(port, [...OPEN, LISTEN])).toMatchObject([{ state: LISTEN, local: `127.0.0.1:${port}` }]);
  });

  it('reads a dump of many messages to its end', async () => {
    const port = await listen({ port: 0, host: '127.0.0.1' });
    await connectMany(port, '127.0.0.1', 1_000);
    // 88 bytes and more each: several reads.
    expect(agreed(port, OPEN)).toHaveLength(1_000);
  });

  it('finds all listeners whatever their port', async () => {
    const ports = [await listen({ port: 0, host: '127.0.0.1' }), await listen({ port: 0, host: '0.0.0.0' })];
    const mine = (found: TcpSocket[]) => found.map(({ local }) => Number(local.split(':').at(-1)));
    expect(mine(tcpSockets([LISTEN]))).toEqual(expect.arrayContaining(ports));
    expect(mine(tcpTableFromProc(process.pid, { states: [LISTEN] }))).toEqual(expect.arrayContaining(ports));
    const listening = listenFds(process.pid);
    expect(listening.map(({ address }) => address)).toEqual(
      expect.arrayContaining([`tcp://127.0.0.1:${ports[0]}`, `tcp://0.0.0.0:${ports[1]}`]),
    );
    const held = new Map([...socketFds(process.pid)].map(({ fd, inode }) => [fd, inode]));
    for (const { fd, inode } of listening) expect(held.get(fd)).toBe(inode);
  });
});

describe('what netlink answers', () => {
  const message = (type: number, payload: Buffer, flags = 2) => {
    const header = Buffer.alloc(16);
    header.writeUInt32LE(16 + payload.length, 0);
    header.writeUInt16LE(type, 4);
    header.writeUInt16LE(flags, 6);
    return Buffer.concat([header, payload]);
  };
  const int = (value: number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32LE(value);
    return bytes;
  };
  const socket = () => {
    const bytes = Buffer.alloc(72);
    bytes.writeUInt8(2, 0);
    bytes.writeUInt8(1, 1);
    bytes.writeUInt16BE(80, 4);
    bytes.writeUInt16BE(4_000, 6);
    bytes.set([10, 0, 0, 1], 8);
    bytes.set([10, 0, 0, 2], 24);
    bytes.writeUInt32LE(4_294_967_295, 68);
    return bytes;
  };
  const parse = (...messages: Buffer[]) => {
    const into: TcpSocket[] = [];
    return { done: parseMessages(Buffer.concat(messages), into), into };
  };

  it('goes on until DONE', () => {
    const one = { state: 1, inode: 4_294_967_295, local: '10.0.0.1:80', peer: '10.0.0.2:4000', unsent: false };
    expect(parse(message(20, socket()), message(20, socket()))).toEqual({ done: false, into: [one, one] });
    expect(parse(message(20, socket()), message(3, int(0)))).toEqual({ done: true, into: [one] });
    expect(parse(message(20, Buffer.concat([socket(), Buffer.alloc(8)])), message(3, int(0))).into).toEqual([one]);
  });

  it('is not believed when it is an error, cut or interrupted', () => {
    expect(() => parse(message(2, int(-2)))).toThrow('error -2');
    expect(() => parse(message(20, socket()), message(3, int(-105)))).toThrow('error -105');
    expect(() => parse(message(20, socket().subarray(0, 60)))).toThrow('a message of 76 bytes');
    expect(() => parse(message(20, socket()).subarray(0, 80))).toThrow('a cut message');
    expect(() => parse(Buffer.alloc(16))).toThrow('a cut message');
    expect(() => parse(Buffer.alloc(7))).toThrow('a cut message');
    expect(() => parse(message(20, socket(), 0x12))).toThrow('interrupted');
  });
});
