import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { encodeLine, type WatchItem } from '@sluice/contract';
import type { Io } from '../lib/io.ts';
import { runProgram } from '../program.ts';

export let routes: Record<string, { status?: number; body?: unknown; watch?: readonly WatchItem[] }>;
export let requests: { at: string; body: unknown }[];
export let server: Server;
export let url: string;
export let folder: string;

/** An API that knows no path until a test gives it some. */
export async function open(): Promise<void> {
  routes = {};
  requests = [];
  folder = mkdtempSync(join(tmpdir(), 'sluice-cli-'));
  server = createServer(async (request, response) => {
    const at = `${request.method} ${request.url}`;
    requests.push({ at, body: await bodyOf(request) });
    const route = routes[at];
    if (route?.watch !== undefined) {
      response.writeHead(200);
      response.end(route.watch.map((item) => encodeLine(item)).join(''));
      return;
    }
    response.writeHead(route === undefined ? 404 : (route.status ?? 200), { 'content-type': 'application/json' });
    response.end(JSON.stringify(route?.body ?? { code: 'SLUICE_PROXY_UNKNOWN', message: `no ${at}`, hint: 'look' }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
export function close(): void {
  server.close();
  server.closeAllConnections();
  rmSync(folder, { recursive: true });
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text === '' ? undefined : JSON.parse(text);
}

/** One command line, against that API. */
export async function run(...args: string[]): Promise<{ exit: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const sink = (take: (text: string) => void): Writable =>
    new Writable({
      write(chunk, _encoding, done) {
        take(String(chunk));
        done();
      },
    });
  const io: Io = {
    out: sink((text) => {
      out += text;
    }),
    err: sink((text) => {
      err += text;
    }),
    env: {},
    interrupted: () => new AbortController().signal,
    programName: 'sluice',
  };
  process.env.SLUICE_CONTROLLER = url;
  const exit = await runProgram(args, io);
  return { exit, out, err };
}
