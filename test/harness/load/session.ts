import net from 'node:net';
import { WebSocket } from 'ws';
import { LoadClient, type Targets } from './client.ts';

const ECHO_EVERY_MS = 500;
const ANSWER_LIMIT_MS = 10_000;

/** A long-lived two-way connection, as the session clients need it. */
interface Pipe {
  send(line: string): void;
  /** Ends it in the protocol's own way; `ended` follows. */
  finish(): void;
  destroy(): void;
  /** Resolves with what ended it. */
  readonly ended: Promise<string>;
}

/** Sessions of `sessionMs` with an echo each 500 ms; the client ends each and opens the next. */
abstract class SessionClient extends LoadClient {
  private readonly sessions: number;
  private readonly sessionMs: number;

  constructor(name: string, sessions: number, sessionMs: number) {
    super(name);
    this.sessions = sessions;
    this.sessionMs = sessionMs;
  }

  protected abstract connect(onLine: (line: string) => void): Promise<Pipe | undefined>;

  protected override run(): Promise<unknown>[] {
    return Array.from({ length: this.sessions }, (_, i) => this.worker(i));
  }

  private async worker(index: number): Promise<void> {
    let length = this.sessionMs * ((index + 1) / this.sessions);
    while (!this.stopping) {
      await this.session(length);
      length = this.sessionMs;
    }
  }

  private async session(lengthMs: number): Promise<void> {
    let answered: (() => void) | undefined;
    let waiting: string | undefined;
    const pipe = await this.connect((line) => {
      if (line !== waiting) {
        this.tally.fail(line, 'an answer that nobody waits for');
        return;
      }
      waiting = undefined;
      this.tally.ok(line);
      answered?.();
    });
    if (pipe === undefined) return this.pause(200);
    const until = Date.now() + lengthMs;
    let ended: string | undefined;
    void pipe.ended.then((why) => {
      ended = why;
    });
    while (!this.stopping && Date.now() < until && ended === undefined) {
      const id = this.tally.nextId();
      waiting = id;
      const answer = new Promise<void>((resolve) => {
        answered = resolve;
      });
      pipe.send(id);
      const timer = setTimeout(() => pipe.destroy(), ANSWER_LIMIT_MS);
      const why = await Promise.race([answer, pipe.ended]);
      clearTimeout(timer);
      if (why !== undefined) {
        this.tally.fail(id, `session ended: ${why}`);
        return;
      }
      await Promise.race([this.pause(ECHO_EVERY_MS), pipe.ended]);
    }
    // Ended between two echoes and not by us: the session was cut all the same.
    if (ended !== undefined) this.tally.fail(this.tally.nextId(), `session ended between echoes: ${ended}`);
    pipe.finish();
    const timer = setTimeout(() => pipe.destroy(), ANSWER_LIMIT_MS);
    await pipe.ended;
    clearTimeout(timer);
  }
}

export class WebSocketClient extends SessionClient {
  private readonly targets: Targets;

  constructor(targets: Targets, sessions: number, sessionMs: number) {
    super('websocket', sessions, sessionMs);
    this.targets = targets;
  }

  protected override connect(onLine: (line: string) => void): Promise<Pipe | undefined> {
    const url = `ws://${this.targets.host}:${this.targets.http}/`;
    const socket = new WebSocket(url, { handshakeTimeout: ANSWER_LIMIT_MS, perMessageDeflate: false });
    let opened = false;
    let why: string | undefined;
    socket.on('message', (data: Buffer) => onLine(data.toString()));
    const ended = new Promise<string>((resolve) => {
      socket.on('error', (error: Error) => {
        why ??= error.message;
      });
      socket.on('close', (code: number) => resolve(why ?? `close ${code}`));
    });
    const pipe: Pipe = {
      send: (line) => socket.send(line),
      finish: () => socket.close(1000),
      destroy: () => socket.terminate(),
      ended,
    };
    return new Promise((resolve) => {
      socket.once('open', () => {
        opened = true;
        resolve(pipe);
      });
      void ended.then((reason) => {
        if (opened) return;
        // A refused connect is counted by the connection log.
        if (!reason.includes('ECONNREFUSED')) this.tally.fail(this.tally.nextId(), `handshake: ${reason}`);
        resolve(undefined);
      });
    });
  }
}

export class TcpClient extends SessionClient {
  private readonly targets: Targets;

  constructor(targets: Targets, sessions: number, sessionMs: number) {
    super('tcp', sessions, sessionMs);
    this.targets = targets;
  }

  protected override connect(onLine: (line: string) => void): Promise<Pipe | undefined> {
    const socket = net.connect({ host: this.targets.host, port: this.targets.tcp, noDelay: true });
    let rest = '';
    socket.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    });
    const ended = new Promise<string>((resolve) => {
      socket.on('error', (error) => resolve(error.message));
      socket.on('end', () => resolve('FIN'));
      socket.on('close', () => resolve('closed'));
    });
    const pipe: Pipe = {
      send: (line) => socket.write(`${line}\n`),
      finish: () => socket.end(),
      destroy: () => socket.destroy(),
      ended,
    };
    return new Promise((resolve) => {
      socket.once('connect', () => resolve(pipe));
      socket.once('error', () => resolve(undefined));
    });
  }
}
