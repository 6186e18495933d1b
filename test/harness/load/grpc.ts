import grpc from '@grpc/grpc-js';
import { ECHO_SERVICE, ID_HEADER } from '../upstream/answers.ts';
import { LoadClient, type Targets } from './client.ts';
import type { RefusedStreams } from './http2-streams.ts';

const CALL_LIMIT_MS = 30_000;
const ECHO_EVERY_MS = 500;
/** Retries off, and each client a connection of its own. */
const CHANNEL = {
  'grpc.enable_retries': 0,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.service_config_disable_resolution': 1,
};

function connect(targets: Targets): grpc.Client {
  return new grpc.Client(`${targets.host}:${targets.http}`, grpc.credentials.createInsecure(), CHANNEL);
}

export class GrpcUnaryClient extends LoadClient {
  private readonly targets: Targets;
  private readonly channels: number;
  private readonly rate: number;
  private readonly refused: RefusedStreams;

  constructor(targets: Targets, refused: RefusedStreams, channels: number, rate: number) {
    super('grpc-unary');
    this.targets = targets;
    this.channels = channels;
    this.rate = rate;
    this.refused = refused;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.channels }, () => this.worker());
  }

  private async worker(): Promise<void> {
    const client = connect(this.targets);
    const open = new Set<Promise<void>>();
    await this.paced(this.rate / this.channels, async () => {
      const call = this.once(client);
      open.add(call);
      void call.finally(() => open.delete(call));
    });
    await Promise.all(open);
    client.close();
  }

  private once(client: grpc.Client): Promise<void> {
    const id = this.tally.nextId();
    const message = Buffer.from(`${id}\n${'p'.repeat(Math.floor(Math.random() * 500))}`);
    const { path, requestSerialize, responseDeserialize } = ECHO_SERVICE.unary;
    const options = { deadline: Date.now() + CALL_LIMIT_MS };
    const metadata = new grpc.Metadata();
    metadata.set(ID_HEADER, id);
    return new Promise((resolve) => {
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        message,
        metadata,
        options,
        (error, answer) => {
          if (error?.code === grpc.status.UNAVAILABLE && this.refused.take(id)) this.tally.refuse(id);
          else if (error !== null) this.tally.fail(id, `${error.code} ${error.details}`);
          else if (answer?.equals(message) !== true) this.tally.fail(id, 'a wrong answer');
          else this.tally.ok(id);
          resolve();
        },
      );
    });
  }
}

/** Bidirectional streams of `streamMs` each, with an echo every 500 ms; the client ends each and begins the next. */
export class GrpcBidiClient extends LoadClient {
  private readonly targets: Targets;
  private readonly streams: number;
  private readonly streamMs: number;
  private readonly refused: RefusedStreams;

  constructor(targets: Targets, refused: RefusedStreams, streams: number, streamMs: number) {
    super('grpc-bidi');
    this.targets = targets;
    this.streams = streams;
    this.streamMs = streamMs;
    this.refused = refused;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.streams }, (_, i) => this.worker(i));
  }

  private async worker(index: number): Promise<void> {
    // Spread, so that at each moment some streams are young and some are old.
    let length = this.streamMs * ((index + 1) / this.streams);
    while (!this.stopping) {
      const client = connect(this.targets);
      await this.stream(client, length);
      client.close();
      length = this.streamMs;
    }
  }

  private async stream(client: grpc.Client, lengthMs: number): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = ECHO_SERVICE.bidi;
    const waiting = new Set<string>();
    const name = this.tally.nextId();
    const metadata = new grpc.Metadata();
    metadata.set(ID_HEADER, name);
    const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
    const ended = new Promise<void>((resolve) => {
      call.on('data', (answer: Buffer) => {
        const id = answer.toString();
        if (waiting.delete(id)) this.tally.ok(id);
        else this.tally.fail(id, 'an answer that nobody waits for');
      });
      call.on('error', () => {});
      call.on('status', (status: grpc.StatusObject) => {
        const unsent = status.code === grpc.status.UNAVAILABLE && this.refused.take(name);
        for (const id of waiting) {
          if (unsent) this.tally.refuse(id);
          else this.tally.fail(id, `stream ended: ${status.code} ${status.details}`);
        }
        if (status.code !== grpc.status.OK && waiting.size === 0 && !unsent) {
          this.tally.fail(name, `stream ended: ${status.code} ${status.details}`);
        }
        waiting.clear();
        alive = false;
        resolve();
      });
    });
    let alive = true;
    const until = Date.now() + lengthMs;
    while (alive && !this.stopping && Date.now() < until) {
      const id = this.tally.nextId();
      waiting.add(id);
      call.write(Buffer.from(id));
      await Promise.race([this.pause(ECHO_EVERY_MS), ended]);
    }
    call.end();
    const limit = setTimeout(() => call.cancel(), CALL_LIMIT_MS);
    await ended;
    clearTimeout(limit);
  }
}
