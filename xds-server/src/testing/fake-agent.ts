import { request } from 'node:http';
import type { Duplex } from 'node:stream';
import {
  type AgentMessage,
  type ControllerMessage,
  type EpochStatus,
  encodeLine,
  type Hello,
  LINK_PATH,
  LINK_PROTOCOL,
  NdjsonDecoder,
  PROTOCOL_VERSION,
  type Verdict,
} from '@sluice/contract';

/** The agent's end of a real link, driven by a test. */
export class FakeAgent {
  readonly received: ControllerMessage[] = [];
  readonly ended: Promise<void>;
  readonly #socket: Duplex;
  readonly #decoder = new NdjsonDecoder();
  #waiting: { test: (message: ControllerMessage) => boolean; resolve: (message: ControllerMessage) => void }[] = [];

  private constructor(socket: Duplex) {
    this.#socket = socket;
    const ended = Promise.withResolvers<void>();
    this.ended = ended.promise;
    socket.on('data', (chunk: Buffer) => {
      for (const line of this.#decoder.push(chunk)) this.#take(line as unknown as ControllerMessage);
    });
    socket.on('error', () => ended.resolve());
    socket.on('close', () => ended.resolve());
    socket.on('end', () => socket.end());
  }

  static async connect(port: number, hello?: Partial<Hello>): Promise<FakeAgent> {
    const agent = await FakeAgent.raw(port);
    agent.send({
      type: 'hello',
      v: PROTOCOL_VERSION,
      proxy: 'edge',
      slot: '1',
      agentVersion: '0.0.0',
      identity: {},
      epochs: [],
      versions: ['1.38.3', '1.40.0'],
      ...hello,
    });
    return agent;
  }

  /** A link on which nothing was said yet. */
  static raw(port: number): Promise<FakeAgent> {
    return new Promise((resolve, reject) => {
      const ask = request({
        port,
        host: '127.0.0.1',
        path: LINK_PATH,
        headers: { Connection: 'Upgrade', Upgrade: LINK_PROTOCOL },
      });
      ask.on('upgrade', (_response, socket, head) => {
        const agent = new FakeAgent(socket);
        if (head.length > 0) socket.unshift(head);
        resolve(agent);
      });
      ask.on('response', (response) => reject(new Error(`HTTP ${response.statusCode}`)));
      ask.on('error', reject);
      ask.end();
    });
  }

  send(message: AgentMessage): void {
    this.#socket.write(encodeLine(message));
  }

  write(bytes: string | Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** The first message of one of these types that was not taken yet; it is taken. */
  async next<T extends ControllerMessage['type']>(...types: T[]): Promise<Extract<ControllerMessage, { type: T }>> {
    const test = ({ type }: ControllerMessage) => (types as string[]).includes(type);
    const at = this.received.findIndex(test);
    if (at !== -1) return this.received.splice(at, 1)[0] as Extract<ControllerMessage, { type: T }>;
    return new Promise((resolve) => {
      this.#waiting.push({
        test,
        resolve: (message) => resolve(message as Extract<ControllerMessage, { type: T }>),
      });
    });
  }

  /** Reads no more. */
  pause(): void {
    this.#socket.pause();
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: ControllerMessage): void {
    const waiting = this.#waiting.find((one) => one.test(message));
    if (waiting === undefined) this.received.push(message);
    else {
      this.#waiting = this.#waiting.filter((one) => one !== waiting);
      waiting.resolve(message);
    }
  }
}

export function epochStatus(epoch: number, state: EpochStatus['state'], more: Partial<EpochStatus> = {}): EpochStatus {
  return {
    epoch,
    slot: '1',
    state,
    version: epoch === 0 ? '1.38.3' : '1.40.0',
    pid: 100 + epoch,
    startedAt: 1,
    ...more,
  };
}

export function verdict(safe: boolean, more: Partial<Verdict> = {}): Verdict {
  return {
    safe,
    summary: safe ? 'safe: no connection is left' : 'wait: 1 connection protected (tcp)',
    at: Date.now(),
    total: safe ? 0 : 1,
    protected: safe ? 0 : 1,
    holding: safe ? 0 : 1,
    held: safe
      ? []
      : [
          {
            connection: {
              epoch: 0,
              id: '7',
              peer: '10.0.0.9:4711',
              local: '10.0.0.1:80',
              listener: 'ingress',
              protocol: 'tcp',
              openedAt: Date.now() - 9_000,
            },
            protected: true,
            reason: 'tcp',
            holds: true,
            rule: 'default',
          },
        ],
    witnesses: [{ name: 'kernel', open: safe ? 0 : 1, at: Date.now() }],
    pastDeadline: false,
    ...more,
  };
}
