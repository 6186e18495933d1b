import { readdirSync } from 'node:fs';
import { createServer, type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { CATALOGUE, type ErrorCode, SluiceError, toSluiceError } from '@sluice/contract';
import type { Lingering } from '../epochs/cost.ts';
import type { Log } from '../log.ts';
import { COUNTER_KEYS, type Reading } from '../pacing/load.ts';
import type { Surroundings } from '../preflight/shared.ts';
import { closeServer, SERVER_TIMEOUTS } from '../status/http.ts';
import { listenOnSocket, removeSocket } from '../status/unix-listen.ts';
import type { Peer } from './negotiate.ts';

/** Version of what two agents of one proxy say to each other. */
export const PEER_PROTOCOL = 1;
const MAX_BODY_BYTES = 64 * 1024;
const CALL_TIMEOUT_MS = 5_000;

/** What the successor must know of the epoch that it takes over from. */
export interface PeerEpoch {
  readonly epoch: number;
  readonly restartEpoch: number;
  readonly socketPath: string;
  readonly baseId: number;
  readonly concurrency: number;
  readonly version: string;
  readonly binary: string;
  readonly adminAddress: string;
  readonly startedAt?: number;
  readonly lineStartedAt?: number;
  /** False: it was started without hot restart; absent from an older agent. */
  readonly hotRestart?: boolean;
}

export interface PeerState extends Peer {
  readonly v: number;
  readonly proxy: string;
  readonly serving?: PeerEpoch;
  /** Absent from an older agent. */
  readonly surroundings?: Surroundings;
  /** Addresses that the serving epoch listens on by UDP. */
  readonly udp?: readonly string[];
  /** Its old epochs, for the memory budget, which is the proxy's. Absent from an older agent. */
  readonly lingering?: readonly Lingering[];
}

/**
 * What a successor tells the agent that it takes over from, in this order: `taking`, before its Envoy exists; `stop`, when
 * that one is ready and the old listeners are to stop; `served`, when it alone accepts, so that the receiver's epoch is the
 * old one from now on. `gave-up` at any point before `served`.
 */
export const STEPS = ['taking', 'stop', 'served', 'gave-up'] as const;
export type Step = (typeof STEPS)[number];

export const NONE = -1;

export interface Served {
  readonly epoch: number;
  /** NONE: the receiver has nothing that serves, or had a moment ago. */
  readonly from: number;
  readonly upgradeId: string;
  /** Slot of the sender; absent from an older agent. */
  readonly slot?: string;
}

export interface PeerHandlers {
  state(): PeerState | Promise<PeerState>;
  step(step: Step, message: Served): Promise<void>;
  /** What the epoch that serves here has borne so far; undefined: none serves. */
  load(): Promise<Reading | undefined>;
}

export function peerSocket(shared: string, slot: string): string {
  return join(shared, `peer-${slot}.sock`);
}

/** Serves `SHARED/peer-SLOT.sock`. Throws SLOT_TAKEN when another live agent has this slot. */
export async function createPeerServer(
  shared: string,
  slot: string,
  handlers: PeerHandlers,
  log: Log,
): Promise<{ close(): Promise<void> }> {
  const path = peerSocket(shared, slot);
  const server = createServer(SERVER_TIMEOUTS, (call, response) => {
    const answer = async (): Promise<unknown> => {
      if (call.method === 'GET' && call.url === '/v1/peer') return handlers.state();
      if (call.method === 'GET' && call.url === '/v1/load') return (await handlers.load()) ?? {};
      const step = STEPS.find((one) => call.url === `/v1/${one}`);
      if (call.method !== 'POST' || step === undefined) {
        throw new SluiceError('INPUT_INVALID', `expected /v1/peer or a step, found ${call.method} ${call.url}`);
      }
      const message = JSON.parse(await text(call)) as Partial<Served>;
      if (
        typeof message.epoch !== 'number' ||
        typeof message.from !== 'number' ||
        typeof message.upgradeId !== 'string'
      ) {
        throw new SluiceError('INPUT_INVALID', 'expected epoch, from and upgradeId, found another message');
      }
      const { epoch, from, upgradeId, slot } = message;
      await handlers.step(step, { epoch, from, upgradeId, ...(typeof slot === 'string' && { slot }) });
      return {};
    };
    answer().then(
      (body) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body)),
      (thrown) => {
        const error = toSluiceError(thrown);
        log('warn', 'peer refused', { code: error.code, error: error.message });
        response.writeHead(400, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify(error));
      },
    );
  });
  server.maxConnections = 16;
  await listenOnSocket(server, path);
  return {
    async close() {
      await closeServer(server);
      removeSocket(path);
    },
  };
}

/** The agent of another slot that answers, with the socket it answers on. Undefined when none does. */
export async function findPeer(shared: string, slot: string): Promise<{ path: string; state: PeerState } | undefined> {
  for (const name of socketsIn(shared)) {
    if (name === `peer-${slot}.sock`) continue;
    const path = join(shared, name);
    try {
      return { path, state: readPeerState(await call(path, 'GET', '/v1/peer')) };
    } catch (error) {
      if (error instanceof SluiceError) throw error; // nobody listens: the file of a dead agent
    }
  }
  return undefined;
}

export async function tellPeer(path: string, step: Step, message: Served): Promise<void> {
  await call(path, 'POST', `/v1/${step}`, message);
}

/** What the old epochs of the other slot hold: nothing where none answers, or its agent is an older one. */
export async function askPeerLingering(shared: string, slot: string): Promise<readonly Lingering[]> {
  return (await findPeer(shared, slot))?.state.lingering ?? [];
}

/** What the epoch that serves in `slot` has borne. undefined: none does, or its agent is an older one. */
export async function askPeerLoad(shared: string, slot: string): Promise<Reading | undefined> {
  const answer = (await call(peerSocket(shared, slot), 'GET', '/v1/load')) as Partial<Record<string, unknown>> | null;
  const numbers = ['at', 'concurrency', ...COUNTER_KEYS];
  return numbers.every((key) => typeof answer?.[key] === 'number') ? (answer as unknown as Reading) : undefined;
}

function socketsIn(shared: string): string[] {
  try {
    return readdirSync(shared).filter((name) => /^peer-.+\.sock$/.test(name));
  } catch {
    return [];
  }
}

function call(socketPath: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(CALL_TIMEOUT_MS);
    const out = request({ socketPath, method, path, signal, agent: false }, (response) => {
      text(response)
        .then((answer) => {
          if (response.statusCode === 200) return resolve(parseAnswer(answer));
          throw refusal(path, answer);
        })
        .catch(reject);
    });
    out.on('error', reject);
    out.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** The peer's own error where it is one of ours. */
function refusal(path: string, answer: string): SluiceError {
  const found = `expected the peer to accept ${path}, found: ${answer.slice(0, 300)}`;
  const code = /^\{"code":"SLUICE_([A-Z_]+)"/.exec(answer)?.[1];
  return new SluiceError(code !== undefined && code in CATALOGUE ? (code as ErrorCode) : 'INPUT_INVALID', found);
}

function parseAnswer(answer: string): unknown {
  try {
    return JSON.parse(answer);
  } catch (cause) {
    throw new SluiceError('INPUT_INVALID', 'expected JSON from the peer, found something else', { cause });
  }
}

/** What must be there of a serving epoch for a successor to take over from it. */
const SERVING_FIELDS = {
  epoch: 'number',
  restartEpoch: 'number',
  socketPath: 'string',
  baseId: 'number',
  concurrency: 'number',
  version: 'string',
  binary: 'string',
  adminAddress: 'string',
} as const satisfies Partial<Record<keyof PeerEpoch, string>>;

const LINGERING_FIELDS = {
  epoch: 'number',
  privateBytes: 'number',
  holding: 'number',
  budgetMiB: 'number',
  lingers: 'boolean',
} as const satisfies Record<keyof Lingering, string>;

function readPeerState(answer: unknown): PeerState {
  const state = (answer ?? {}) as Partial<Record<keyof PeerState, unknown>>;
  if (state.v !== PEER_PROTOCOL) {
    throw new SluiceError('PROTOCOL_UNSUPPORTED', `expected a peer of protocol ${PEER_PROTOCOL}, found ${state.v}`);
  }
  const odd = (field: string): SluiceError =>
    new SluiceError('INPUT_INVALID', `expected the peer to tell ${field}, found another value or none`);
  if (typeof state.slot !== 'string') throw odd('slot');
  if (!Number.isSafeInteger(state.nextEpoch)) throw odd('nextEpoch');
  if (state.serving !== undefined) {
    const serving = (state.serving ?? {}) as Record<string, unknown>;
    for (const [field, type] of Object.entries(SERVING_FIELDS)) {
      if (typeof serving[field] !== type) throw odd(`serving.${field}`);
    }
  }
  if (state.lingering !== undefined) {
    if (!Array.isArray(state.lingering)) throw odd('lingering');
    for (const one of state.lingering as readonly (Record<string, unknown> | null)[]) {
      for (const [field, type] of Object.entries(LINGERING_FIELDS)) {
        if (typeof one?.[field] !== type) throw odd(`lingering.${field}`);
      }
    }
  }
  return answer as PeerState;
}

async function text(message: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of message) {
    size += (part as Buffer).length;
    if (size > MAX_BODY_BYTES)
      throw new SluiceError('TOO_LARGE', `expected at most ${MAX_BODY_BYTES} bytes, found more`);
    parts.push(part as Buffer);
  }
  return Buffer.concat(parts).toString('utf8');
}
