import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { encodeReport, type Report } from '@sluice/contract';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type ConnectLoad, newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { type Mesh, meshResources, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';

let mesh: Mesh;
let load: ConnectLoad;

beforeAll(async () => {
  mesh = await startMesh({ envoy: await envoyBinary('1.40.0') });
  load = newConnections(mesh.port, 200);
});

// Whatever was sent, traffic went on and the serving epoch is the first one still.
afterAll(async () => {
  const counts = await load.stop();
  const proxy = await mesh.controller.proxy('edge');
  await mesh.close();
  expect(counts).toMatchObject({ refused: 0, lost: 0 });
  expect(proxy.serving).toMatchObject({ epoch: 0 });
});

test('a resource file of a wrong type is refused with its line, the last good set is served on', async () => {
  const file = path.join(mesh.resources, 'all.json');
  const good = readFileSync(file, 'utf8');
  const bad = JSON.stringify({ resources: meshResources(mesh.port, mesh.upstreamPort, 7) }, null, 1).replace(
    `"port_value": ${mesh.port}`,
    '"port_value": "not a port"',
  );
  replace(file, bad);
  const log = () => readFileSync(path.join(mesh.block.dir, 'controller.log'), 'utf8');
  const refusal = await until('the refusal is logged', () => log().match(/^.*resources refused.*$/m)?.[0]);
  expect(refusal).toMatch(/all\.json:\d+/);
  expect(refusal).toContain('port_value');
  const response = await fetch(`http://127.0.0.1:${mesh.port}/`);
  await response.text();
  expect(response.headers.get('x-revision')).toBe('0');
  replace(file, good);
});

test('an unknown proxy and an upgrade of nothing are one clear error each', async () => {
  await expect(mesh.controller.startUpgrade('nobody', '1.40.0')).rejects.toThrow(/404 SLUICE_PROXY_UNKNOWN/);
  await expect(mesh.controller.call('POST', '/upgrades', { proxy: 'edge' })).rejects.toThrow(
    /400 SLUICE_INPUT_INVALID/,
  );
  await expect(mesh.controller.upgrade('no-such-upgrade')).rejects.toThrow(/404 SLUICE_UPGRADE_UNKNOWN/);
});

test('100 MB sent to the agent is cut off early; its memory stays bounded', async () => {
  const before = rss();
  const sent = await pour(100 * 1024 * 1024);
  expect(sent).toBeLessThan(100 * 1024 * 1024);
  expect(rss() - before).toBeLessThan(64 * 1024 * 1024);
  expect((await mesh.agent.call('GET', '/v1/status')).status).toBe(200);
});

test('a report that lies or is cut short is refused by name, and changes no count of the kernel', async () => {
  const report: Report = {
    snapshotFirst: true,
    snapshotLast: true,
    draining: false,
    tracking: true,
    more: false,
    marks: true,
    epoch: 0,
    seq: 1,
    vm: '4242',
    now: Date.now(),
    orderVersion: 0,
    open: 1_000_000,
    openedTotal: 1_000_000,
    closedTotal: 0,
    requestsEnded: 0,
    records: [],
  };
  const bytes = Buffer.from(encodeReport(report));
  expect(await post(bytes)).toMatch(/^HTTP\/1\.1 200/); // well formed: its table does not match, so a snapshot is asked for
  expect(await post(bytes.subarray(0, bytes.length - 3))).toMatch(/REPORT_INVALID/);
  expect(await post(Buffer.from('not a report at all'))).toMatch(/REPORT_INVALID/);
  // Cut off while it still sends: the answer may be lost to the reset, an acceptance may not come.
  expect(await post(Buffer.alloc(300 * 1024))).toMatch(/^(HTTP\/1\.1 413|$)/);
  expect((await mesh.agent.serving()).epoch).toBe(0);
});

function replace(file: string, text: string): void {
  writeFileSync(`${file}.next`, text);
  renameSync(`${file}.next`, file);
}

function rss(): number {
  const status = readFileSync(`/proc/${mesh.agent.child.pid}/status`, 'latin1');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024;
}

function socket(): net.Socket {
  return net.connect(path.join(mesh.agent.dir, 'agent.sock'));
}

/** Posts one report; the whole answer as text. */
function post(body: Buffer): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const connection = socket();
    const done = () => resolve(text);
    connection.setEncoding('latin1').on('data', (chunk) => {
      text += chunk;
    });
    connection.on('error', done).on('close', done);
    const head = `POST /v1/report HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n`;
    connection.write(Buffer.concat([Buffer.from(head), body]));
  });
}

/** Pours bytes in until they are all taken or the agent hangs up; how many were taken. */
function pour(total: number): Promise<number> {
  return new Promise((resolve) => {
    const connection = socket();
    const block = Buffer.alloc(1024 * 1024, 0x41);
    let sent = 0;
    const done = () => resolve(sent);
    connection.on('error', done).on('close', done);
    const more = () => {
      while (sent < total) {
        sent += block.length;
        if (!connection.write(block)) return;
      }
      connection.end();
    };
    connection.on('drain', more).on('connect', () => {
      connection.write(`POST /v1/report HTTP/1.1\r\nhost: agent\r\ntransfer-encoding: chunked\r\n\r\n6400000\r\n`);
      more();
    });
    connection.resume();
  });
}
