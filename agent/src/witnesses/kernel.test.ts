import { once } from 'node:events';
import { rmSync } from 'node:fs';
import net, { type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { KernelWitness, listenAddressesOf, readKernel } from './kernel.ts';

const open: { destroy(): unknown }[] = [];
const servers: net.Server[] = [];

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) if (server.listening) await new Promise((done) => server.close(done));
});

async function listen(options: net.ListenOptions): Promise<net.Server> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => open.push(socket.on('error', () => {})));
  servers.push(server.listen(options));
  await once(server, 'listening');
  return server;
}

/** A connection that both ends have. */
async function connect(server: net.Server, options: net.NetConnectOpts): Promise<{ client: Socket; accepted: Socket }> {
  const client = net.connect({ allowHalfOpen: true, ...options }).on('error', () => {});
  open.push(client);
  const [[accepted]] = await Promise.all([once(server, 'connection'), once(client, 'connect')]);
  return { client, accepted };
}

const portOf = (server: net.Server) => (server.address() as AddressInfo).port;

/** Closing is not at once: the descriptor goes in the event loop's closing phase. */
const closed = (socket: Socket) => (socket.closed ? Promise.resolve() : once(socket, 'close'));

describe('the kernel as a witness', () => {
  it('counts accepted connections, not those that the process opened itself', async () => {
    const server = await listen({ port: 0, host: '127.0.0.1' });
    const other = await listen({ port: 0, host: '127.0.0.1' });
    const { client } = await connect(server, { port: portOf(server), host: '127.0.0.1' });
    await connect(other, { port: portOf(other), host: '127.0.0.1' });
    const address = `127.0.0.1:${portOf(server)}`;
    expect(listenAddressesOf(process.pid)).toContain(address);
    const { open, sockets } = readKernel(process.pid, [address]);
    expect(open).toBe(1);
    expect(sockets[0]).toMatchObject({ local: address, peer: `127.0.0.1:${client.localPort}` });
  });

  it('finds them by port under a wildcard address, and over IPv6', async () => {
    const wildcard = await listen({ port: 0, host: '0.0.0.0' });
    await connect(wildcard, { port: portOf(wildcard), host: '127.0.0.1' });
    expect(readKernel(process.pid, [`0.0.0.0:${portOf(wildcard)}`]).open).toBe(1);
    const six = await listen({ port: 0, host: '::1' }).catch(() => undefined);
    if (!six) return; // no IPv6 on this machine
    await connect(six, { port: portOf(six), host: '::1' });
    expect(readKernel(process.pid, [`[::1]:${portOf(six)}`]).sockets[0]?.local).toBe(`[::1]:${portOf(six)}`);
  });

  it('counts a connection that its client has half closed, until it is closed', async () => {
    const server = await listen({ port: 0, host: '127.0.0.1' });
    const { client, accepted } = await connect(server, { port: portOf(server), host: '127.0.0.1' });
    const address = `127.0.0.1:${portOf(server)}`;
    accepted.resume();
    client.end();
    await once(accepted, 'end');
    expect(readKernel(process.pid, [address]).open).toBe(1);
    accepted.destroy();
    await closed(accepted);
    expect(readKernel(process.pid, [address]).open).toBe(0);
  });

  it('counts connections of a Unix-socket listener by its path', async () => {
    const path = join(tmpdir(), `sluice-kernel-${process.pid}.sock`);
    rmSync(path, { force: true });
    const server = await listen({ path });
    await connect(server, { path });
    expect(listenAddressesOf(process.pid)).toContain(path);
    expect(readKernel(process.pid, [path]).sockets).toMatchObject([{ local: path, peer: '' }]);
  });

  it('sees each go, once the process listens no more', async () => {
    const server = await listen({ port: 0, host: '127.0.0.1' });
    const port = portOf(server);
    const first = await connect(server, { port, host: '127.0.0.1' });
    const second = await connect(server, { port, host: '127.0.0.1' });
    const witness = new KernelWitness(process.pid, [`127.0.0.1:${port}`]);
    expect(witness.read().open).toBe(2);
    server.close();
    expect(witness.read().open).toBe(2);
    first.accepted.destroy();
    await closed(first.accepted);
    expect(witness.read().sockets.map((s) => s.peer)).toEqual([`127.0.0.1:${second.client.localPort}`]);
    second.accepted.destroy();
    await closed(second.accepted);
    expect(witness.read().open).toBe(0);
  });

  it('sees those that come while the process still listens', async () => {
    const server = await listen({ port: 0, host: '127.0.0.1' });
    const witness = new KernelWitness(process.pid, [`127.0.0.1:${portOf(server)}`]);
    expect(witness.read().open).toBe(0);
    await connect(server, { port: portOf(server), host: '127.0.0.1' });
    expect(witness.read().open).toBe(1);
    await connect(server, { port: portOf(server), host: '127.0.0.1' });
    expect(witness.read().open).toBe(2);
  });

  it('refuses to speak of a process that is gone', () => {
    expect(() => readKernel(2 ** 22 + 1, ['127.0.0.1:1'])).toThrow(/ENOENT/);
    expect(listenAddressesOf(2 ** 22 + 1)).toEqual([]);
  });
});
