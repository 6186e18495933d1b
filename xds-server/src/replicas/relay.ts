import { Client, type ClientDuplexStream, credentials, Metadata, status } from '@grpc/grpc-js';
import type { Log } from '../log.ts';
import type { XdsCall } from '../xds/services.ts';
import type { Replica } from './membership.ts';

/** Names the replica that passed a stream on: one is passed on once only. */
const RELAYED_BY = 'sluice-relayed-by';
/** A replica whose machine is gone is noticed by this and not by TCP. */
const KEEPALIVE_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5_000;

export interface RelayOptions {
  readonly self: string;
  /** The other replica that a proxy belongs to; undefined: this one. */
  readonly elsewhere: (proxy: string) => Replica | undefined;
  readonly log: Log;
}

interface Relayed {
  readonly proxy: string;
  readonly to: string;
  end(why: string): void;
}

/** They are streams of Node; only the library's types of `write` are narrower. */
const asWritable = (stream: unknown): NodeJS.WritableStream => stream as NodeJS.WritableStream;
const same = (bytes: Buffer): Buffer => bytes;

/**
 * Passes an Envoy's xDS stream on to the replica that its proxy belongs to: message by message, as bytes, each way as fast as the
 * other side reads. Envoy knows one address, that of all replicas, so where its stream arrives is chance. When either side ends
 * the other one does; when the owner dies the stream fails, and Envoy comes again with its own back-off.
 */
export class XdsRelay {
  readonly #options: RelayOptions;
  readonly #clients = new Map<string, Client>();
  readonly #relayed = new Set<Relayed>();

  constructor(options: RelayOptions) {
    this.#options = options;
  }

  get streams(): number {
    return this.#relayed.size;
  }

  /** Takes the call over when its proxy belongs to another replica. `first`: what was read of it already. */
  take(call: XdsCall, first: Buffer, proxy: string): boolean {
    const { self, elsewhere, log } = this.#options;
    const owner = elsewhere(proxy);
    if (owner === undefined) return false;
    const [by] = call.metadata.get(RELAYED_BY);
    if (by !== undefined) {
      // The two do not agree yet who lives: Envoy asks again in a moment.
      call.emit('error', { code: status.UNAVAILABLE, details: `${proxy} belongs to ${owner.id}, not to ${self}` });
      return true;
    }
    log.debug({ proxy, to: owner.id }, 'xDS stream is passed on');
    this.#pipe(call, first, proxy, owner);
    return true;
  }

  /** The owners changed: ends what goes to one that is it no more. */
  moved(): void {
    for (const one of [...this.#relayed]) {
      if (this.#options.elsewhere(one.proxy)?.xds !== one.to) one.end('its proxy belongs to another replica now');
    }
    const used = new Set([...this.#relayed].map((one) => one.to));
    for (const [address, client] of this.#clients) {
      if (used.has(address)) continue;
      client.close();
      this.#clients.delete(address);
    }
  }

  close(): void {
    for (const one of [...this.#relayed]) one.end('the controller closes');
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #pipe(call: XdsCall, first: Buffer, proxy: string, { xds }: Replica): void {
    const metadata = new Metadata();
    metadata.set(RELAYED_BY, this.#options.self);
    const upstream: ClientDuplexStream<Buffer, Buffer> = this.#client(xds).makeBidiStreamRequest(
      call.getPath(),
      same,
      same,
      metadata,
    );
    let over = false;
    const settle = (): boolean => {
      if (over) return false;
      over = true;
      this.#relayed.delete(relayed);
      call.unpipe(asWritable(upstream));
      upstream.unpipe(asWritable(call));
      return true;
    };
    const fail = (details: string): void => {
      if (settle()) call.emit('error', { code: status.UNAVAILABLE, details });
    };
    const relayed: Relayed = {
      proxy,
      to: xds,
      end: (why) => {
        fail(why);
        upstream.cancel();
      },
    };
    this.#relayed.add(relayed);
    // Its failure comes before its end, which it has too then.
    upstream.on('error', (error) => fail(`the replica that it belongs to: ${error.message}`));
    upstream.on('end', () => {
      if (settle()) call.end();
    });
    for (const event of ['error', 'cancelled', 'close']) {
      call.on(event, () => {
        settle();
        upstream.cancel();
      });
    }
    upstream.write(first);
    // Pipes hold back what the other side does not take.
    call.pipe(asWritable(upstream));
    upstream.pipe(asWritable(call), { end: false });
  }

  #client(address: string): Client {
    let client = this.#clients.get(address);
    if (client === undefined) {
      client = new Client(address, credentials.createInsecure(), {
        'grpc.keepalive_time_ms': KEEPALIVE_MS,
        'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
        'grpc.keepalive_permit_without_calls': 1,
        // One that ends and begins again at its address is asked again soon: without it, after up to two minutes.
        'grpc.initial_reconnect_backoff_ms': 200,
        'grpc.max_reconnect_backoff_ms': 2_000,
        // Not shared with another Client of the same address in this process.
        'grpc.use_local_subchannel_pool': 1,
      });
      this.#clients.set(address, client);
    }
    return client;
  }
}
