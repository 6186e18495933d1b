import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { selfSigned } from '../harness/certificate.ts';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { endEpochs, KeeperProcess } from '../harness/keeper.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type StaticProxy, staticProxy } from '../harness/static-proxy.ts';

/** What the new epoch and its upstreams bear, seen on a real Envoy: each strain slows the drain down and is named. */
let block: Block;
let proxy: StaticProxy;
let tlsPort: number;
let agent: KeeperProcess;
let kept: net.Socket[];

beforeEach(async () => {
  block = await claimBlock();
  proxy = await staticProxy(block);
  tlsPort = await block.port();
  kept = [];
  withTls(proxy.bootstrap, tlsPort);
  agent = await KeeperProcess.start({
    proxy: 'edge',
    dir: proxy.dir,
    bootstrap: proxy.bootstrap,
    envoy: await envoyBinary('1.40.0'),
    baseId: block.baseId(),
    concurrency: 2,
    policy: { pacing: { perSecond: 4 } },
  });
  // Long enough a drain for whatever is to be seen, of an epoch that is older than the 3 s in which its counters count.
  for (let i = 0; i < 80; i += 1) {
    kept.push(await connected(proxy.port));
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  await agent.call('POST', '/v1/upgrade', { to: await envoyBinary('1.40.0') });
  await agent.line('connections are told to leave', (line) => line.mode === 'age');
});

afterEach(async () => {
  for (const socket of kept) socket.destroy();
  agent.child.kill('SIGKILL');
  endEpochs(proxy.dir);
  proxy.close();
  await block.release();
});

/** A second listener, which speaks TLS, before the same filters. */
function withTls(file: string, port: number): void {
  const bootstrap = JSON.parse(readFileSync(file, 'utf8'));
  const [plain] = bootstrap.static_resources.listeners;
  const { certificate, key } = selfSigned('edge.sluice.test');
  const tls = {
    '@type': 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext',
    common_tls_context: {
      tls_certificates: [{ certificate_chain: { inline_string: certificate }, private_key: { inline_string: key } }],
    },
  };
  bootstrap.static_resources.listeners.push({
    ...plain,
    name: 'secure',
    address: { socket_address: { address: '127.0.0.1', port_value: port } },
    filter_chains: [{ ...plain.filter_chains[0], transport_socket: { name: 'tls', typed_config: tls } }],
  });
  writeFileSync(file, JSON.stringify(bootstrap));
}

async function connected(port: number): Promise<net.Socket> {
  const socket = net.connect(port, '127.0.0.1').on('error', () => {});
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject));
  return socket.resume();
}

/** Repeats `act` until the agent has named such a strain. */
async function slowedBy(why: RegExp, act: () => Promise<unknown>): Promise<void> {
  const over = agent.line('the drain slows down', (line) => why.test(String(line.why)));
  let done = false;
  const end = (): void => {
    done = true;
  };
  over.then(end, end);
  while (!done) await act();
  expect((await over).perSecond).toBe(2);
}

test('TLS handshakes that fail', async () => {
  await slowedBy(/^[\d.]+ TLS handshakes a second failed, usually 0$/, async () => {
    const socket = await connected(tlsPort);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('GET / HTTP/1.1\r\n\r\n');
    await closed;
  });
});

test('TLS handshakes that are begun and not finished', async () => {
  await slowedBy(/^TLS handshakes lag behind by [\d.]+ a second/, async () => {
    kept.push(await connected(tlsPort));
    if (kept.length > 5_000) for (const old of kept.splice(80, 1_000)) old.destroy();
  });
});

test('more new connections than were told to leave', async () => {
  const load = newConnections(proxy.port, 200);
  await slowedBy(/^\d+ new connections a second, usually/, () => new Promise((resolve) => setTimeout(resolve, 50)));
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
});

test('an upstream that takes no connection', async () => {
  proxy.close();
  await slowedBy(/^the new epoch or its upstreams refused [\d.]+ a second, usually 0$/, async () => {
    const socket = await connected(proxy.port);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n');
    await closed;
  });
});
