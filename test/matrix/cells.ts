import type { LeverState, Protocol } from '@sluice/contract';
import type { Transport } from './bootstrap.ts';
import type { Client } from './context.ts';
import * as grpc from './grpc-clients.ts';
import * as http1 from './http1-clients.ts';
import * as http2 from './http2-clients.ts';
import * as session from './session-clients.ts';

/** One kind of connection, in one state, over one transport; what its lever does to it stands in the levers table. */
export interface Cell {
  readonly name: string;
  readonly protocol: Protocol;
  readonly state: LeverState;
  readonly transport: Transport;
  readonly client: Client;
  /** `client`: a session that only its client ends. */
  readonly endsBy?: 'client';
}

const HTTP1: readonly [string, LeverState, Client][] = [
  ['http1 idle', 'idle', http1.idle],
  ['http1 idle, asks again', 'active', http1.idleThenAsks],
  ['http1 busy', 'active', http1.busy],
  ['http1 pipelined', 'active', http1.pipelined],
  ['http1 slow upload', 'active', http1.slowUpload],
  ['http1 slow head', 'active', http1.slowHead],
  ['http1 slow download', 'answering', http1.slowDownload],
  ['http1 chunked with trailers', 'active', http1.trailers],
  ['http1 100-continue', 'active', http1.expectContinue],
  ['http1.0', 'active', http1.http10],
];

const HTTP2: readonly [string, LeverState, Client][] = [
  ['http2 idle', 'idle', http2.idle],
  ['http2 without a request', 'idle', http2.noRequest],
  ['http2 busy', 'active', http2.busy],
  ['http2 long stream', 'answering', http2.longStream],
  ['http2 large upload', 'active', http2.largeUpload],
  ['grpc unary', 'active', grpc.unary],
  ['grpc server stream', 'answering', grpc.serverStream],
  ['grpc bidi', 'answering', grpc.bidi],
];

/** What it will speak only its handshake tells; without one nobody knows. */
const UNUSED: readonly [string, Protocol, Transport, Client][] = [
  ['unused', 'unknown', 'plain', http1.unused],
  ['http1 unused', 'http1', 'tls', http1.unused],
  ['http2 unused', 'http2', 'tls', http1.unusedHttp2],
];

const SESSIONS: readonly [string, Protocol, LeverState, Transport, Client][] = [
  ['websocket', 'upgrade', 'active', 'plain', session.webSocket],
  ['websocket silent', 'upgrade', 'idle', 'plain', session.webSocketSilent],
  ['websocket unused', 'upgrade', 'new', 'plain', session.webSocketUnused],
  ['websocket over http2', 'http2', 'answering', 'plain', session.webSocketOverHttp2],
  ['websocket', 'upgrade', 'active', 'tls', session.webSocket],
  ['tcp', 'tcp', 'active', 'tcp', session.tcp],
  ['tcp silent', 'tcp', 'idle', 'tcp', session.tcpSilent],
  ['tcp unused', 'tcp', 'new', 'tcp', session.tcpUnused],
  ['tcp', 'tcp', 'active', 'tls-tcp', session.tcp],
];

/** Every state over plain TCP, and idle and busy ones over each other transport. */
const OTHERS: readonly Transport[] = ['tls', 'tls-own-keys', 'mtls', 'proxy-protocol', 'ipv6', 'unix'];
const EVERYWHERE = new Set(['http1 idle', 'http1 busy', 'http2 idle', 'http2 busy']);

function over(transport: Transport, protocol: Protocol, rows: readonly [string, LeverState, Client][]): Cell[] {
  return rows
    .filter(([name]) => transport === 'plain' || EVERYWHERE.has(name))
    .map(([name, state, client]) => ({ name: nameOf(name, transport), protocol, state, transport, client }));
}

function nameOf(name: string, transport: Transport): string {
  return transport === 'plain' || transport === 'tcp' ? name : `${name}, ${transport}`;
}

export const CELLS: readonly Cell[] = [
  ...(['plain', ...OTHERS] as const).flatMap((transport) => [
    ...over(transport, 'http1', HTTP1),
    ...over(transport, 'http2', HTTP2),
  ]),
  ...UNUSED.map(([name, protocol, transport, client]) => ({
    name: nameOf(name, transport),
    protocol,
    state: 'new' as const,
    transport,
    client,
  })),
  ...SESSIONS.map(([name, protocol, state, transport, client]) => ({
    name: nameOf(name, transport),
    protocol,
    state,
    transport,
    client,
    endsBy: 'client' as const,
  })),
];
