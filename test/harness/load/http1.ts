import net from 'node:net';
import tls from 'node:tls';
import { answerBody, askPath, ID_HEADER } from '../upstream/answers.ts';
import { LoadClient, type Targets } from './client.ts';
import { Http1Connection, requestHead } from './http1-connection.ts';

const ANSWER_LIMIT_MS = 30_000;

export interface Http1Options {
  readonly name: string;
  readonly connections: number;
  /** Requests per second, all connections together. */
  readonly rate: number;
  readonly post?: boolean;
  /** A new connection for each request. */
  readonly fresh?: boolean;
  readonly tls?: boolean;
  /** Longest delay that is asked of the upstream, so that some requests are in flight at each moment. */
  readonly maxDelayMs?: number;
}

/** Each worker has one connection of its own and uses it at a steady pace: it is never silent for long. */
export class Http1Client extends LoadClient {
  private readonly options: Http1Options;
  private readonly targets: Targets;
  private session: Buffer | undefined;
  /** TLS handshakes that a ticket shortened, and all. */
  readonly handshakes = { resumed: 0, total: 0 };

  constructor(targets: Targets, options: Http1Options) {
    super(options.name);
    this.options = options;
    this.targets = targets;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.options.connections }, () => this.worker());
  }

  private async worker(): Promise<void> {
    let connection: Http1Connection | undefined;
    await this.paced(this.options.rate / this.options.connections, async () => {
      if (connection === undefined || connection.done) {
        connection?.close();
        connection = await this.connect();
      }
      // Undefined: the connection log has counted the failed connect.
      if (connection === undefined) return;
      await this.once(connection);
      if (this.options.fresh === true) connection.close();
    });
    connection?.close();
  }

  private async once(connection: Http1Connection): Promise<void> {
    const id = this.tally.nextId();
    const size = Math.floor(Math.random() * 2000);
    const delay = Math.random() < 0.1 ? Math.floor(Math.random() * (this.options.maxDelayMs ?? 0)) : 0;
    const body = this.options.post === true ? answerBody(id, size) : undefined;
    const ask = { id, path: askPath({ size, delay }), host: this.targets.host, idHeader: ID_HEADER };
    try {
      const head = requestHead(body === undefined ? ask : { ...ask, body });
      const answer = await connection.request(head, body, ANSWER_LIMIT_MS);
      const wrong = check(id, size, answer.status, answer.headers.get(ID_HEADER), answer.body);
      if (wrong === undefined) this.tally.ok(id);
      else this.tally.fail(id, wrong);
    } catch (error) {
      this.tally.fail(id, (error as Error).message);
      connection.socket.destroy();
      connection.done = true;
    }
  }

  private connect(): Promise<Http1Connection | undefined> {
    const { host } = this.targets;
    return new Promise((resolve) => {
      const plain = net.connect({ host, port: this.options.tls === true ? this.targets.tls : this.targets.http });
      plain.once('error', () => resolve(undefined));
      if (this.options.tls !== true) {
        plain.once('connect', () => resolve(new Http1Connection(plain)));
        return;
      }
      const session = this.session === undefined ? {} : { session: this.session };
      const id = this.tally.nextId();
      const secure = tls.connect({ socket: plain, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'], ...session });
      const failed = (error: Error) => {
        if (plain.remotePort !== undefined) this.tally.fail(id, `TLS handshake: ${error.message}`);
        resolve(undefined);
      };
      secure.once('error', failed);
      secure.on('session', (ticket: Buffer) => {
        this.session = ticket;
      });
      secure.once('secureConnect', () => {
        secure.off('error', failed);
        this.handshakes.total++;
        if (secure.isSessionReused()) this.handshakes.resumed++;
        resolve(new Http1Connection(secure));
      });
    });
  }
}

/** What is wrong with an answer, if anything. */
export function check(
  id: string,
  size: number,
  status: number | undefined,
  answeredId: string | undefined,
  body: Buffer,
): string | undefined {
  if (status !== 200) return `status ${status}: ${body.toString().slice(0, 100)}`;
  if (answeredId !== id) return `the answer of another request (${answeredId})`;
  const right = answerBody(id, size);
  return body.equals(right) ? undefined : `a wrong body: ${body.length} bytes, expected ${right.length}`;
}

/** When an idle connection was opened, told to leave and closed. Epoch ms. */
export interface IdleRecord {
  readonly localPort: number;
  readonly openedAt: number;
  goawayAt?: number;
  endedAt?: number;
}

/** HTTP/1 connections that ask once and then stay silent until the server closes them; each is opened again then. */
export class IdleHttp1Client extends LoadClient {
  readonly records: IdleRecord[] = [];
  private readonly targets: Targets;
  private readonly connections: number;

  constructor(targets: Targets, connections: number) {
    super('http1-idle');
    this.targets = targets;
    this.connections = connections;
  }

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.connections }, () => this.worker());
  }

  private async worker(): Promise<void> {
    while (!this.stopping) {
      const socket = net.connect({ host: this.targets.host, port: this.targets.http });
      socket.on('error', () => {});
      const connection = new Http1Connection(socket);
      const id = this.tally.nextId();
      const head = requestHead({ id, path: askPath({ size: 10 }), host: this.targets.host, idHeader: ID_HEADER });
      try {
        const answer = await connection.request(head, undefined, ANSWER_LIMIT_MS);
        const wrong = check(id, 10, answer.status, answer.headers.get(ID_HEADER), answer.body);
        if (wrong === undefined) this.tally.ok(id);
        else this.tally.fail(id, wrong);
      } catch (error) {
        this.tally.fail(id, (error as Error).message);
      }
      const record: IdleRecord = { localPort: socket.localPort ?? 0, openedAt: Date.now() };
      this.records.push(record);
      const closed = new Promise<void>((resolve) => {
        if (connection.done) resolve();
        socket.once('end', resolve);
        socket.once('close', () => resolve());
      });
      await Promise.race([closed, this.pause(2 ** 31 - 1)]);
      if (!this.stopping) record.endedAt = Date.now();
      connection.close();
      await this.pause(200);
    }
  }
}
