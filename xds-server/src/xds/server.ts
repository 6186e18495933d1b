import { EventEmitter } from 'node:events';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { SluiceError } from '@sluice/contract';
import { type ResourceKind, typeOfUrl } from '../resources/types.ts';
import { type AckEvent, type AckState, Acks, type NackEvent } from './acks.ts';
import { Bodies } from './bodies.ts';
import type { XdsNode } from './node.ts';
import { SERVICES, type StreamHandler, serviceOf, type XdsCall } from './services.ts';
import type { Mode } from './session.ts';
import type { Snapshot } from './snapshot.ts';
import { XdsStream } from './stream.ts';

/** What the server writes to: pino fits. */
export interface XdsLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface XdsServerOptions {
  readonly log: XdsLog;
  /** undefined: this proxy is not known (yet); its streams stay open and get what push() or refresh() brings. */
  snapshotFor(node: XdsNode): Snapshot | undefined;
  /** Takes a call over, with its first request, where its node is another controller's; false: it is served here. */
  passOn?(call: XdsCall, first: Buffer, node: XdsNode): boolean;
  /** Plain text when absent. */
  readonly credentials?: ServerCredentials;
  /** Ping an idle connection this often, milliseconds. */
  readonly keepaliveMs?: number;
  readonly orderTimeoutMs?: number;
}

interface Events {
  /** The first stream of a (proxy, epoch) came, or its last one went. */
  connect: [node: XdsNode];
  disconnect: [node: XdsNode];
  ack: [AckEvent];
  nack: [NackEvent];
}

export interface XdsServer {
  readonly events: EventEmitter<Events>;
  /** `HOST:PORT` (0 = any free one) or `unix:PATH`. Resolves with the port (0 for a Unix socket). */
  bind(address: string): Promise<number>;
  /** Asks snapshotFor() again for the connected streams, of one proxy or epoch when named; equal snapshots send nothing. */
  refresh(proxy?: string, epoch?: number): void;
  /** Gives this snapshot to the connected streams of a proxy (of one epoch when given). */
  push(proxy: string, epoch: number | undefined, snapshot: Snapshot): void;
  /** Ends the streams of these nodes: their Envoys come again, each with its own back-off. */
  end(which: (node: XdsNode) => boolean): void;
  /** What this epoch said last of a type (URL or kind); undefined: not connected, or nothing said yet. */
  acked(proxy: string, epoch: number, type: string): AckState | undefined;
  /** The connected nodes, one for each (proxy, epoch). */
  nodes(): XdsNode[];
  readonly stats: { readonly streams: number; readonly bodiesBuilt: number };
  /** Ends the streams and the server; connections that stay after `graceMs` are cut. */
  close(graceMs?: number): Promise<void>;
}

const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
const ORDER_TIMEOUT_MS = 5_000;
/** Streams served in one turn of the event loop, so that a push to thousands does not hold up the rest. */
const STREAMS_PER_TURN = 64;

export function createXdsServer(options: XdsServerOptions): XdsServer {
  const { log } = options;
  const events = new EventEmitter<Events>();
  const streams = new Set<XdsStream>();
  const perEpoch = new Map<string, Set<XdsStream>>();
  const acks = new Acks();
  const bodies = new Bodies();
  const keepalive = options.keepaliveMs ?? KEEPALIVE_MS;
  const server = new Server({
    'grpc.keepalive_time_ms': keepalive,
    'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
    'grpc.keepalive_permit_without_calls': 1,
  });

  function onNode(stream: XdsStream, node: XdsNode): void {
    const key = Acks.key(node.id, node.epoch);
    const set = perEpoch.get(key) ?? new Set();
    perEpoch.set(key, set.add(stream));
    log.info({ proxy: node.id, epoch: node.epoch, peer: stream.peer }, 'xDS stream opened');
    if (set.size === 1) events.emit('connect', node);
  }

  function onClose(stream: XdsStream): void {
    streams.delete(stream);
    const { node } = stream;
    if (node === undefined) return;
    const key = Acks.key(node.id, node.epoch);
    const set = perEpoch.get(key);
    if (!set?.delete(stream) || set.size > 0) return;
    perEpoch.delete(key);
    acks.delete(node.id, node.epoch);
    log.info({ proxy: node.id, epoch: node.epoch }, 'xDS streams of this epoch ended');
    events.emit('disconnect', node);
  }

  /** A resource that can not be made for this node must not end its stream, nor the process. */
  function snapshotFor(node: XdsNode): Snapshot | undefined {
    try {
      return options.snapshotFor(node);
    } catch (error) {
      log.warn({ proxy: node.id, epoch: node.epoch, err: error }, 'no snapshot; the last good resources stay in force');
      return undefined;
    }
  }

  const handler =
    (mode: Mode, kind: ResourceKind | undefined): StreamHandler =>
    (call) => {
      const stream = new XdsStream(call, {
        mode,
        kind,
        bodies,
        orderTimeoutMs: options.orderTimeoutMs ?? ORDER_TIMEOUT_MS,
        snapshotFor,
        passOn: (relayed, first, node) => options.passOn?.(relayed, first, node) ?? false,
        onNode,
        onClose,
        onUnknownType: ({ node }, typeUrl) => log.warn({ proxy: node?.id, typeUrl }, 'asked for a type not served'),
        onSettled: ({ node }, settledKind, version, settled) => {
          const event = acks.record(node!, settledKind, version, settled);
          const fields = { proxy: event.proxy, epoch: event.epoch, kind: settledKind, version, names: event.names };
          if ('message' in event) {
            log.warn({ ...fields, message: event.message }, 'NACK: the last good resources stay in force');
            events.emit('nack', event);
          } else {
            events.emit('ack', event);
          }
        },
      });
      streams.add(stream);
    };
  for (const spec of SERVICES) server.addService(...serviceOf(spec, handler));

  /** Streams that are due for a push, in the order of the calls; one drain at a time. */
  const due = new Map<XdsStream, (stream: XdsStream) => void>();
  let turning = false;
  function turn(): void {
    let left = STREAMS_PER_TURN;
    for (const [stream, push] of due) {
      if (left-- === 0) break;
      due.delete(stream);
      if (streams.has(stream)) push(stream);
    }
    turning = due.size > 0;
    if (turning) setImmediate(turn);
  }
  function schedule(matching: Iterable<XdsStream>, push: (stream: XdsStream) => void): void {
    for (const stream of matching) due.set(stream, push);
    if (turning || due.size === 0) return;
    turning = true;
    setImmediate(turn);
  }
  function* matching(proxy: string | undefined, epoch: number | undefined): Generator<XdsStream> {
    for (const stream of proxy !== undefined && epoch !== undefined
      ? (perEpoch.get(Acks.key(proxy, epoch)) ?? [])
      : streams) {
      if (stream.node !== undefined && (proxy === undefined || stream.node.id === proxy)) yield stream;
    }
  }

  return {
    events,
    bind: (address) =>
      new Promise((resolve, reject) => {
        server.bindAsync(address, options.credentials ?? ServerCredentials.createInsecure(), (error, port) => {
          if (error === null) resolve(port);
          else {
            const found = `expected a free address for xDS, found ${address}: ${error.message}`;
            reject(new SluiceError('CONFIG_INVALID', found, { cause: error }));
          }
        });
      }),
    refresh: (proxy, epoch) => schedule(matching(proxy, epoch), (stream) => stream.push(snapshotFor(stream.node!))),
    push: (proxy, epoch, snapshot) => schedule(matching(proxy, epoch), (stream) => stream.push(snapshot)),
    end: (which) => {
      for (const stream of [...streams]) if (stream.node !== undefined && which(stream.node)) stream.end();
    },
    acked: (proxy, epoch, type) =>
      acks.get(proxy, epoch, typeOfUrl(type)?.kind ?? (type.toLowerCase() as ResourceKind)),
    nodes: () => [...perEpoch.values()].flatMap((set) => [...set].slice(0, 1)).map((stream) => stream.node!),
    get stats() {
      return { streams: streams.size, bodiesBuilt: bodies.built };
    },
    close: (graceMs = 2_000) =>
      new Promise((resolve) => {
        for (const stream of [...streams]) stream.end();
        const cut = setTimeout(() => server.forceShutdown(), graceMs);
        server.tryShutdown(() => {
          clearTimeout(cut);
          resolve();
        });
      }),
  };
}
