import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import path from 'node:path';
import { WebSocket, WebSocketServer } from 'ws';
import { type Mesh, meshResources, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

/** A mesh whose proxy has a second HTTP listener, `quiet`, and an upstream that speaks WebSocket. */
export interface PolicyRig {
  readonly mesh: Mesh;
  readonly port: number;
  readonly quietPort: number;
  close(): Promise<void>;
}

export async function startPolicyRig(envoy: string): Promise<PolicyRig> {
  const mesh = await startMesh({ envoy });
  const upstream = http.createServer((request, response) => {
    const bytes = Number(/^\/bytes\/(\d+)$/.exec(request.url ?? '')?.[1] ?? 0);
    response.end(bytes > 0 ? Buffer.alloc(bytes) : 'done\n');
  });
  upstream.keepAliveTimeout = 120_000; // or Envoy meets a connection of its pool that the upstream closed a moment ago
  const sockets = new WebSocketServer({ server: upstream });
  sockets.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => socket.send(data.toString()));
    socket.on('error', () => {});
  });
  const close = async (): Promise<void> => {
    await mesh.close();
    for (const socket of sockets.clients) socket.terminate();
    upstream.closeAllConnections();
    upstream.close();
  };
  try {
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    const quietPort = await mesh.block.port();
    replaceResources(mesh, rigResources(mesh, quietPort, (upstream.address() as AddressInfo).port));
    await until('both listeners answer from the new upstream', async () => {
      for (const port of [mesh.port, quietPort]) {
        const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
        await response.text();
        if (response.headers.get('x-revision') !== '1') return undefined;
      }
      return true;
    });
    return { mesh, port: mesh.port, quietPort, close };
  } catch (error) {
    await close();
    throw error;
  }
}

type Resource = Record<string, unknown> & { readonly '@type': string };

/** The mesh's own, with the upstream of this rig, a listener `quiet` beside `in`, and a route for `/chat`. */
export function rigResources(mesh: Mesh, quietPort: number, upstreamPort: number): Resource[] {
  const resources = meshResources(mesh.port, upstreamPort, 1) as Resource[];
  const action = { cluster: 'up', timeout: '60s' };
  const routes = [
    { name: 'chat', match: { prefix: '/chat' }, route: action },
    { name: 'rest', match: { prefix: '/' }, route: action },
  ];
  return resources.flatMap((one) => {
    if (one['@type'].endsWith('.RouteConfiguration')) {
      return [{ ...one, virtual_hosts: [{ name: 'all', domains: ['*'], routes }] }];
    }
    if (!one['@type'].endsWith('.Listener')) return [one];
    const address = { socket_address: { address: '127.0.0.1', port_value: quietPort } };
    return [one, { ...one, name: 'quiet', address }];
  });
}

export function replaceResources(mesh: Mesh, resources: readonly object[]): void {
  const file = path.join(mesh.resources, 'all.json');
  writeFileSync(`${file}.next`, JSON.stringify({ resources }));
  renameSync(`${file}.next`, file);
}

/** One client's long-lived connection, whose end is seen from its own side. */
export interface Client {
  /** `ip:port` as the proxy sees it. */
  readonly peer: string;
  readonly ended: Promise<void>;
  readonly hasEnded: () => boolean;
  close(): void;
}

/** A WebSocket from that address; it has echoed once. */
export async function webSocket(
  port: number,
  from: string,
  url = '/',
): Promise<Client & { echo(text: string): Promise<string> }> {
  // ws passes what it does not know to http.request; its types do not say so.
  const options = { localAddress: from, perMessageDeflate: false };
  const socket = new WebSocket(`ws://127.0.0.1:${port}${url}`, options);
  let over = false;
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  void ended.then(() => {
    over = true;
  });
  socket.on('error', () => {});
  const opened = once(socket, 'open');
  const [response] = (await once(socket, 'upgrade')) as [http.IncomingMessage];
  await opened;
  const echo = async (text: string): Promise<string> => {
    const answer = once(socket, 'message');
    socket.send(text);
    const [data] = (await answer) as [Buffer];
    return data.toString();
  };
  await echo('hello');
  return {
    peer: `${from}:${response.socket.localPort}`,
    ended,
    hasEnded: () => over,
    close: () => socket.close(),
    echo,
  };
}

/** An HTTP/2 connection from that address, with one request behind it. */
export async function http2Client(
  port: number,
  from: string,
): Promise<Client & { readonly toldAt: () => number | undefined; ask(): Promise<number> }> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: from });
  const session = http2.connect(`http://127.0.0.1:${port}`, { createConnection: () => socket });
  let toldAt: number | undefined;
  let over = false;
  session.on('error', () => {});
  session.once('goaway', () => {
    toldAt = Date.now();
  });
  const ended = new Promise<void>((resolve) => session.once('close', () => resolve()));
  void ended.then(() => {
    over = true;
  });
  const ask = (): Promise<number> =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ':path': '/' });
      let status = 0;
      stream.on('response', (headers) => {
        status = Number(headers[':status']);
      });
      stream.on('error', reject);
      stream.on('close', () => resolve(status));
      stream.resume().end();
    });
  await ask();
  return {
    peer: `${from}:${socket.localPort}`,
    ended,
    hasEnded: () => over,
    toldAt: () => toldAt,
    ask,
    close: () => session.destroy(),
  };
}
