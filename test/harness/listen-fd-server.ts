import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import { migrate } from '@sluice/agent/listen-fd';
import { askHttp1, askHttp2 } from './listen-fd-warm-up.ts';
import { answerBody, ID_HEADER, readAsk } from './upstream/answers.ts';

/**
 * A Node server on the published helper, as a process of its own: HTTP/2 on one address, HTTP/1 on another. Its configuration
 * is one JSON argument. It writes one JSON object a line: `serving`, `released`, `drained` with the report and the ids that it
 * saw; then it ends.
 */
interface Config {
  readonly dir: string;
  readonly http2: readonly string[];
  readonly http1: readonly string[];
  readonly maxDrainMs?: number;
  /** Asks itself some requests before it takes over. */
  readonly warmUp?: boolean;
  /** Folder for the ids, a file for each process: nobody has to read them while somebody measures. */
  readonly seenIn?: string;
}

const config = JSON.parse(process.argv[2] ?? '{}') as Config;
const seen: string[] = [];
const say = (event: string, fields: object = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

function handle(request: http.IncomingMessage, response: http.ServerResponse): void {
  const id = String(request.headers[ID_HEADER] ?? '');
  if (id !== '') seen.push(id);
  const { size, delay } = readAsk(request.url ?? '/');
  // What newConnections asks has no id and ends with this line.
  const body = id === '' ? Buffer.from('done\n') : answerBody(id, size);
  response.setHeader(ID_HEADER, id);
  response.setHeader('content-length', body.length);
  response.on('error', () => {});
  setTimeout(() => response.end(body), delay);
}

const h2 = http2.createServer((request, response) =>
  handle(request as unknown as http.IncomingMessage, response as unknown as http.ServerResponse),
);
h2.on('sessionError', () => {});
const h1 = http.createServer(handle);
h1.keepAliveTimeout = 0;

// Here, because the first write to a pipe shows V8 one more kind of socket.
say('log', { level: 'info', message: 'begins' });
const migration = await migrate(
  [
    { server: h2, addresses: config.http2, ...(config.warmUp === true && { warmUp: askHttp2 }) },
    { server: h1, addresses: config.http1, ...(config.warmUp === true && { warmUp: askHttp1 }) },
  ],
  {
    socket: `${config.dir}/node.sock`,
    ...(config.maxDrainMs !== undefined && { maxDrainMs: config.maxDrainMs }),
    log: (level, message, fields) => say('log', { level, message, ...fields }),
  },
);
say('serving', { takenOver: migration.takenOver });
await migration.released;
say('released', { connections: migration.connections().length });
const report = await migration.drained;
if (config.seenIn === undefined) say('drained', { report, seen });
else writeFileSync(`${config.seenIn}/${process.pid}`, seen.join('\n'));
process.stdout.write('', () => process.exit(0));
await once(process, 'exit');
