import net from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { gracePeriod, hide, silence, steer, steeringProgram, unsteer, waiting } from './reuseport.ts';
import { whyNotSteer } from './reuseport-trial.ts';

interface Listener {
  readonly server: net.Server;
  readonly fd: number;
  hits: number;
}

const open: Listener[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map(({ server }) => new Promise((resolve) => server.close(resolve))));
});

async function listen(port: number, host: string): Promise<Listener> {
  const server = net.createServer((socket) => {
    listener.hits++;
    socket.end();
  });
  await new Promise<void>((resolve) => server.listen({ port, host, reusePort: true }, resolve));
  // Node has no other way to tell the descriptor of a server.
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  const listener: Listener = { server, fd, hits: 0 };
  open.push(listener);
  return listener;
}

/** Connections that each listener got of so many. */
async function hits(port: number, host: string, connections = 60): Promise<number[]> {
  for (const listener of open) listener.hits = 0;
  const one = () =>
    new Promise<void>((resolve, reject) => {
      const socket = net.connect(port, host).resume();
      socket.on('error', reject);
      socket.on('close', () => resolve());
    });
  await Promise.all(Array.from({ length: connections }, one));
  return open.map((listener) => listener.hits);
}

describe.each(['127.0.0.1', '::1'])('on %s', (host) => {
  it('steers to the sockets named, in the order in which they began to listen, through any of them', async () => {
    const first = await listen(0, host);
    const { port } = first.server.address() as net.AddressInfo;
    for (let i = 0; i < 3; i++) await listen(port, host);
    const last = open[3] as Listener;
    steer(last.fd, [0, 1]);
    await gracePeriod();
    const [a = 0, b = 0, ...none] = await hits(port, host);
    expect(a + b).toBe(60);
    expect(Math.min(a, b)).toBeGreaterThan(0);
    expect(none).toEqual([0, 0]);
    steer(first.fd, [3]);
    expect(await hits(port, host)).toEqual([0, 0, 0, 60]);
    unsteer(first.fd);
    unsteer(first.fd);
    expect((await hits(port, host)).filter((n) => n > 0).length).toBeGreaterThan(1);
  });
});

it('a silent socket takes no connection, and one that listens beside it is steered to', async () => {
  const silent = await listen(0, '127.0.0.1');
  const { port } = silent.server.address() as net.AddressInfo;
  silence(silent.fd);
  const late = net.connect(port, '127.0.0.1').resume();
  const answered = new Promise((resolve) => late.once('close', resolve));
  const fresh = await listen(port, '127.0.0.1');
  steer(fresh.fd, [1]);
  // Its SYN was dropped, and is sent again a second later.
  await answered;
  expect(await hits(port, '127.0.0.1')).toEqual([0, 60]);
  expect(waiting(silent.fd)).toBe(0);
});

it('a hidden socket is found by no connection', async () => {
  const hidden = await listen(0, '127.0.0.1');
  const { port } = hidden.server.address() as net.AddressInfo;
  hide(hidden.fd);
  const socket = net.connect(port, '127.0.0.1');
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve));
  expect(error.code).toBe('ECONNREFUSED');
});

it('this kernel steers, and orders a group as we think it does', async () => {
  expect(await whyNotSteer()).toBeUndefined();
});

it('has a program of two instructions for each socket, and refuses none at all', () => {
  expect(steeringProgram([7])).toEqual(Buffer.from([6, 0, 0, 0, 7, 0, 0, 0]));
  expect(steeringProgram([1, 2, 3])).toHaveLength(8 * 7);
  expect(() => steeringProgram([])).toThrow('expected 1 to');
});
