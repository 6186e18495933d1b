import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MAX_REPORT_BYTES, SluiceError } from '@sluice/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type ControlHandlers, type ControlServer, createControlServer } from './control.ts';

let folder: string;
let server: ControlServer;
let serving: PromiseWithResolvers<unknown>;
const seen: unknown[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-control-'));
  serving = Promise.withResolvers();
  seen.length = 0;
  const handlers: ControlHandlers = {
    report: (body) => {
      if (body.toString() === 'lie') throw new SluiceError('REPORT_INVALID', 'expected the truth, found a lie');
      return Buffer.from(`got ${body.length}`);
    },
    status: () => ({ epochs: [] }),
    connections: async (epoch) => {
      seen.push(epoch);
      return { items: [], truncated: false };
    },
    waitServing: () => serving.promise,
    upgrade: async (body) => {
      seen.push(body);
      return { upgradeId: 'u' };
    },
    abort: async () => {
      throw new SluiceError('PHASE_REFUSED', 'expected an upgrade, found none');
    },
    reset: async () => ({}),
  };
  server = await createControlServer({ path: join(folder, 'agent.sock'), handlers, log: () => undefined });
});
afterEach(async () => {
  await server.close();
  rmSync(folder, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly text: string;
}

function ask(method: string, path: string, body?: string | Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath: server.path, method, path, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

test('a report gets the reply of the handler', async () => {
  expect(await ask('POST', '/v1/report', Buffer.alloc(MAX_REPORT_BYTES))).toEqual({
    status: 200,
    text: `got ${MAX_REPORT_BYTES}`,
  });
  expect(server.stats.reports).toBe(1);
});

test('a report that lies is refused by name', async () => {
  const { status, text } = await ask('POST', '/v1/report', 'lie');
  expect(status).toBe(400);
  expect(JSON.parse(text)).toMatchObject({ code: 'SLUICE_REPORT_INVALID' });
  expect(server.stats.refused).toBe(1);
});

test('the socket belongs to its owner alone', () => {
  expect(statSync(server.path).mode & 0o777).toBe(0o600);
});

test('a body that announces too much is answered 413 and not read', async () => {
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(server.path);
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
    });
    socket.on('close', () => resolve(text));
    socket.on('error', () => undefined);
    socket.write(`POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: ${MAX_REPORT_BYTES + 1}\r\n\r\n`);
  });
  expect(answer).toContain('413');
  expect(answer).toContain('SLUICE_TOO_LARGE');
});

test.each([
  ['chunked', 'POST /v1/report HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n', true],
  ['garbage', '', false],
])('100 MB %s leave the memory bounded and the server serving', async (_, head, chunked) => {
  const megabyte = Buffer.alloc(1024 * 1024, 0x61);
  const before = process.memoryUsage.rss();
  await new Promise<void>((resolve) => {
    const socket = connect(server.path);
    socket.on('error', () => undefined);
    socket.on('close', () => resolve());
    socket.write(head);
    let left = 100;
    const more = (): void => {
      while (left-- > 0 && !socket.destroyed) {
        if (chunked) socket.write('100000\r\n');
        const ready = socket.write(megabyte);
        if (chunked) socket.write('\r\n');
        if (!ready) {
          socket.once('drain', more);
          return;
        }
      }
      socket.end();
    };
    more();
  });
  expect(process.memoryUsage.rss() - before).toBeLessThan(50 * 1024 * 1024);
  expect((await ask('GET', '/v1/status')).status).toBe(200);
});

test('a report that is cut short disturbs nobody', async () => {
  await new Promise<void>((resolve) => {
    const socket = connect(server.path, () => {
      socket.write('POST /v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc', () => socket.destroy());
    });
    socket.on('close', () => resolve());
  });
  expect((await ask('GET', '/v1/status')).text).toBe('{"epochs":[]}\n');
});

test('wait answers when the newest epoch serves', async () => {
  const answer = ask('GET', '/v1/wait?timeout=60000');
  serving.resolve({ epoch: 3 });
  expect(await answer).toEqual({ status: 200, text: '{"epoch":3}\n' });
});

test('wait is bounded', async () => {
  const { status, text } = await ask('GET', '/v1/wait?timeout=20');
  expect(status).toBe(504);
  expect(text).toContain('SLUICE_TIMEOUT');
});

test('connections of one epoch, or of all', async () => {
  await ask('GET', '/v1/connections');
  await ask('GET', '/v1/connections?epoch=4');
  expect(seen).toEqual([undefined, 4]);
  expect((await ask('GET', '/v1/connections?epoch=x')).status).toBe(400);
});

test('orders are JSON objects, and their errors come as such', async () => {
  expect((await ask('POST', '/v1/upgrade', '{"to":"1.40.0"}')).status).toBe(202);
  expect(seen).toEqual([{ to: '1.40.0' }]);
  expect((await ask('POST', '/v1/upgrade', '[]')).status).toBe(400);
  expect((await ask('POST', '/v1/upgrade', '{')).status).toBe(400);
  expect((await ask('POST', '/v1/abort')).status).toBe(409);
  expect((await ask('GET', '/v1/nothing')).status).toBe(404);
});

test('a second agent on the same socket is refused, and a dead one is replaced', async () => {
  const options = { path: server.path, handlers: {} as ControlHandlers, log: () => undefined };
  await expect(createControlServer(options)).rejects.toMatchObject({ code: 'SLOT_TAKEN' });
  await server.close();
  writeFileSync(options.path, '');
  server = await createControlServer(options);
});
