import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { until } from '../harness/process.ts';
import { type PolicyRig, startPolicyRig } from './policy-rig.ts';

let rig: PolicyRig | undefined;
const sockets: net.Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await rig?.close();
  rig = undefined;
});

function connect(port: number): net.Socket {
  const socket = net.connect({ port, host: '127.0.0.1' }).pause();
  sockets.push(socket.on('error', () => {}));
  return socket;
}

/** What the kernel holds of an answer that its client does not read. */
async function heldByKernel(): Promise<number> {
  const server = net.createServer((socket) => sockets.push(socket.on('error', () => {}))).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as AddressInfo).port);
  const [accepted] = (await once(server, 'connection')) as [net.Socket];
  let written = 0;
  const write = (): void => {
    accepted.write(Buffer.alloc(65_536), (error) => {
      if (error) return;
      written += 65_536;
      write();
    });
  };
  write();
  for (let before = -1; before !== written; await delay(200)) before = written;
  client.destroy();
  server.close();
  return written;
}

/** The one with V8 and the filter, and the one without. */
test.each(['1.40.0', '1.38.3'])(
  '%s: an answer that Envoy is done with, and its client is not, is waited for',
  async (version) => {
    rig = await startPolicyRig(await envoyBinary(version));
    const { mesh, port } = rig;
    // More than the kernel holds, and no more than Envoy buffers besides.
    const bytes = (await heldByKernel()) + 500_000;
    const client = connect(port);
    client.write(`GET /bytes/${bytes} HTTP/1.1\r\nhost: x\r\n\r\n`);
    await delay(500); // Envoy has all of it by then, or it would be a request in flight anyway
    const to = await envoyBinary('1.39.3');
    const policy = { http1: { silentIdleGraceMs: 500 } };
    const { id } = await mesh.controller.startUpgrade('edge', to, policy);
    await mesh.controller.phase(id, ['Draining']);
    // The grace passes, and several looks.
    await delay(3_000);
    const old = (await mesh.agent.epochs()).find(({ state }) => state === 'draining');
    expect(old?.verdict?.held).toMatchObject([
      { protected: true, reason: 'request-in-flight', connection: { answering: true } },
    ]);
    let got = 0;
    let text = '';
    client.on('data', (chunk) => {
      if (text.length < 2_000) text += chunk.toString('latin1');
      got += chunk.length;
    });
    client.resume();
    const size = () => got - (text.indexOf('\r\n\r\n') + 4);
    await until('the rest of the answer has come', async () => (size() >= bytes ? true : undefined));
    expect(text).toContain(`content-length: ${bytes}`);
    const done = await mesh.controller.phase(id, ['Done']);
    expect(done.connections).toMatchObject({ old: 1, cut: [] });
  },
);
