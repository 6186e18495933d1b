import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import grpc from '@grpc/grpc-js';
import { WebSocketServer } from 'ws';
import { answerBody, ECHO_SERVICE, type Hold, ID_HEADER, readAsk } from './answers.ts';

export interface UpstreamPorts {
  /** HTTP/1.1 and WebSocket. */
  readonly http: number;
  /** HTTP/2 without TLS. */
  readonly http2: number;
  readonly grpc: number;
  readonly tcp: number;
  /** Not behind Envoy: what the upstream has seen. */
  readonly control: number;
  /** 127.0.0.1 when absent. */
  readonly host?: string;
}

export interface Upstream {
  /** How often each request id was seen. */
  readonly seen: ReadonlyMap<string, number>;
  close(): Promise<void>;
}

const HOST = '127.0.0.1';
const SLOW_CHUNKS = 10;

/** Resolves when what a request of this id asked to hold may go on. */
export type Holder = (id: string) => Promise<void>;
const NOTHING_HELD: Holder = () => Promise.resolve();

/** One upstream for all protocols; it counts each id that it sees, so that clients can be reconciled with it. */
export async function startUpstream(ports: UpstreamPorts, hold: Holder = NOTHING_HELD): Promise<Upstream> {
  const seen = new Map<string, number>();
  const note = (id: string) => seen.set(id, (seen.get(id) ?? 0) + 1);

  // Types: http2's compat objects have all that is used here.
  const echo = (request: http.IncomingMessage, response: http.ServerResponse) => {
    const id = String(request.headers[ID_HEADER] ?? '');
    if (id !== '') note(id);
    const parts: Buffer[] = [];
    request.on('data', (chunk: Buffer) => parts.push(chunk));
    request.on('error', () => {});
    request.on('end', () => {
      const ask = readAsk(request.url ?? '/');
      const body = parts.length > 0 ? Buffer.concat(parts) : answerBody(id, ask.size);
      if (ask.hold !== undefined || Object.keys(request.trailers).length > 0) {
        void answerHeld(response, id, body, request.trailers, ask.hold, hold);
      } else setTimeout(() => answer(response, id, body, ask.slow), ask.delay);
    });
  };

  const plain = http.createServer(echo);
  // An upstream that closes idle connections races the proxy's next request on them: that loss would not be Envoy's.
  plain.keepAliveTimeout = 0;
  plain.requestTimeout = 0;
  plain.headersTimeout = 0;
  const sockets = new WebSocketServer({ server: plain });
  sockets.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => {
      note(data.toString().split('\n', 1)[0] ?? '');
      socket.send(data.toString());
    });
    socket.on('error', () => {});
  });

  const h2 = http2.createServer((request, response) =>
    echo(request as unknown as http.IncomingMessage, response as unknown as http.ServerResponse),
  );
  h2.on('sessionError', () => {});

  const tcp = net.createServer((socket) => {
    let rest = '';
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        note(line);
        socket.write(`${line}\n`);
      }
    });
  });

  const control = http.createServer((_, response) => {
    response.setHeader('content-type', 'text/plain');
    response.end([...seen].map(([id, count]) => `${id} ${count}`).join('\n'));
  });

  const rpc = grpcServer(note, hold);
  await Promise.all([
    listen(plain, ports.http, ports.host),
    listen(h2, ports.http2, ports.host),
    listen(tcp, ports.tcp, ports.host),
    listen(control, ports.control, ports.host),
    bind(rpc, ports.grpc, ports.host),
  ]);
  return {
    seen,
    async close() {
      rpc.forceShutdown();
      for (const socket of sockets.clients) socket.terminate();
      plain.closeAllConnections();
      control.closeAllConnections();
      for (const server of [plain, h2, tcp, control]) server.close();
    },
  };
}

function answer(response: http.ServerResponse, id: string, body: Buffer, slowMs: number): void {
  response.setHeader(ID_HEADER, id);
  response.setHeader('content-length', body.length);
  response.on('error', () => {});
  if (slowMs <= 0) {
    response.end(body);
    return;
  }
  let sent = 0;
  const step = Math.ceil(body.length / SLOW_CHUNKS);
  const timer = setInterval(() => {
    const chunk = body.subarray(sent, sent + step);
    sent += chunk.length;
    if (sent < body.length && !response.destroyed) {
      response.write(chunk);
    } else {
      clearInterval(timer);
      response.end(chunk);
    }
  }, slowMs / SLOW_CHUNKS);
}

/** With the request's trailers after it; chunked then, and when its second half is held. */
async function answerHeld(
  response: http.ServerResponse,
  id: string,
  body: Buffer,
  trailers: NodeJS.Dict<string>,
  what: Hold | undefined,
  hold: Holder,
): Promise<void> {
  response.on('error', () => {});
  response.setHeader(ID_HEADER, id);
  const fields = Object.entries(trailers).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]));
  if (fields.length > 0) response.setHeader('trailer', fields.map(([name]) => name).join(', '));
  else if (what === 'answer') response.setHeader('content-length', body.length);
  if (what === 'answer') await hold(id);
  response.write(body.subarray(0, body.length / 2));
  if (what === 'body') await hold(id);
  response.addTrailers(fields as [string, string][]);
  response.end(body.subarray(body.length / 2));
}

function grpcServer(note: (id: string) => void, hold: Holder): grpc.Server {
  const server = new grpc.Server({ 'grpc.max_connection_idle_ms': 2 ** 31 - 1 });
  const read = (message: Buffer) => note(message.toString().split('\n', 1)[0] ?? '');
  server.addService(ECHO_SERVICE as unknown as grpc.ServiceDefinition, {
    unary(call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) {
      read(call.request);
      callback(null, call.request);
    },
    stream(call: grpc.ServerWritableStream<Buffer, Buffer>) {
      read(call.request);
      const [id = '', count] = call.request.toString().split('\n');
      const half = Math.floor(Number(count) / 2);
      for (let n = 0; n < half; n++) call.write(Buffer.from(`${id} ${n}`));
      void hold(id).then(() => {
        for (let n = half; n < Number(count); n++) call.write(Buffer.from(`${id} ${n}`));
        call.end();
      });
    },
    bidi(call: grpc.ServerDuplexStream<Buffer, Buffer>) {
      call.on('data', (message: Buffer) => {
        read(message);
        call.write(message);
      });
      call.on('end', () => call.end());
      call.on('error', () => {});
    },
  });
  return server;
}

function listen(server: net.Server | http2.Http2Server, port: number, host = HOST): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, host, backlog: 4096 }, () => resolve());
  });
}

function bind(server: grpc.Server, port: number, host = HOST): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    );
  });
}
