import { setTimeout as delay } from 'node:timers/promises';
import {
  type AgentMessage,
  type ControllerMessage,
  type Hello,
  PING_INTERVAL_MS,
  toSluiceError,
} from '@sluice/contract';
import type { Log } from '../log.ts';
import { backoffMs } from './backoff.ts';
import { type Connection, connect, type Ended, Moved } from './connection.ts';
import { Outbox } from './outbox.ts';

export interface LinkState {
  readonly connected: boolean;
  readonly url?: string;
  /** Epoch milliseconds of the last change. */
  readonly since: number;
  /** Why it is not connected. */
  readonly error?: string;
}

export interface LinkOptions {
  /** The controllers' API addresses, tried in turn. */
  readonly urls: readonly string[];
  /** The whole state, read anew at every connect. */
  readonly hello: () => Hello;
  readonly onMessage: (message: ControllerMessage) => void;
  readonly onState?: (state: LinkState) => void;
  readonly log: Log;
  /** Ends the link for good. */
  readonly signal: AbortSignal;
  readonly pingMs?: number;
  readonly backoffFirstMs?: number;
  readonly backoffMaxMs?: number;
}

export interface AgentLink {
  /** Never throws, never blocks: kept (see Outbox) while the controller is away. */
  send(message: AgentMessage): void;
  readonly connected: boolean;
  readonly state: LinkState;
  /** Facts and states that wait for a connection. */
  readonly waiting: number;
  close(): void;
  /** Resolves when the link has ended: after close(), or its signal. */
  readonly done: Promise<void>;
}

/** A connection that lasted this long was a good one: the next loss starts the back-off anew. */
const STEADY_MS = 1_000;
/** So often in a row it goes where a controller sends it. */
const MAX_MOVES = 4;

/**
 * Keeps one connection to a controller for as long as `signal` allows; to another one where the controller sends it there, until
 * that one is away. Without urls it never connects and keeps nothing. */
export function createLink(options: LinkOptions): AgentLink {
  const { urls, log } = options;
  const closing = new AbortController();
  const signal = AbortSignal.any([options.signal, closing.signal]);
  const pingMs = options.pingMs ?? PING_INTERVAL_MS;
  const outbox = new Outbox();
  let connection: Connection | undefined;
  let state: LinkState = {
    connected: false,
    since: Date.now(),
    error: urls.length === 0 ? 'no controller' : 'starting',
  };

  const setState = (next: LinkState): void => {
    state = next;
    guarded('state', () => options.onState?.(next));
  };
  const guarded = (what: string, action: () => void): void => {
    try {
      action();
    } catch (thrown) {
      log('error', `link: ${what} was not handled`, { error: toSluiceError(thrown).message });
    }
  };
  const pump = (): void => {
    while (connection !== undefined && !connection.full) {
      const message = outbox.take(Date.now());
      if (message === undefined) return;
      if (!connection.write(message)) log('error', 'link: a message is larger than its bound', { type: message.type });
    }
  };
  const events = {
    message: (message: ControllerMessage) => guarded(`message ${message.type}`, () => options.onMessage(message)),
    odd: (error: Error) => log('warn', 'link: a message was ignored', { error: error.message }),
    drain: pump,
  };

  const session = async (url: string): Promise<Ended & { lasted: number }> => {
    const open = await connect(url, options.hello(), events, pingMs, signal);
    const since = Date.now();
    connection = open;
    log('info', 'link: connected', { url, version: open.version });
    setState({ connected: true, url, since });
    pump();
    const ended = await open.ended;
    connection = undefined;
    // A link may have been dead since the last byte was heard.
    outbox.disconnected(Math.min(Date.now(), open.heardAt) - 3 * pingMs);
    return { lasted: Date.now() - since, ...ended };
  };
  const wait = (round: number): Promise<void> =>
    delay(backoffMs(round, Math.random(), options.backoffFirstMs, options.backoffMaxMs), undefined, { signal }).catch(
      () => undefined,
    );

  const run = async (): Promise<void> => {
    let lastError = '';
    /** Attempts since the last good connection, but for those that were only sent on. */
    let failures = 0;
    let target: string | undefined;
    let moves = 0;
    while (!signal.aborted) {
      const url = target ?? urls[failures % urls.length] ?? '';
      let error: string;
      let moved: string | undefined;
      let steady = false;
      try {
        const ended = await session(url);
        steady = ended.lasted >= STEADY_MS;
        if (steady) failures = moves = 0;
        ({ reason: error, moved } = ended);
      } catch (thrown) {
        error = toSluiceError(thrown).message;
        if (thrown instanceof Moved) moved = thrown.url;
      }
      if (signal.aborted) break;
      const follow = moved !== undefined && moves < MAX_MOVES;
      // The same failure again is no news.
      if (error !== lastError || state.connected) {
        log(follow ? 'info' : 'warn', follow ? 'link: moved' : 'link: not connected', { url, error });
      }
      lastError = error;
      setState({ connected: false, since: state.connected ? Date.now() : state.since, error });
      if (follow) {
        target = moved;
        // Controllers that do not agree yet whose the proxy is send it to and fro.
        if (moves++ > 0) await wait(moves);
        continue;
      }
      const round = Math.floor(failures / urls.length);
      // Where it was sent to is away, or too many sent it on: back to the configured addresses, in their turn.
      if (!steady) failures++;
      target = undefined;
      moves = 0;
      await wait(round);
    }
    setState({ connected: false, since: Date.now(), error: 'stopped' });
  };

  const done = urls.length === 0 ? Promise.resolve() : run();
  return {
    send(message) {
      if (urls.length === 0) return;
      outbox.push(message);
      pump();
    },
    get connected() {
      return connection !== undefined;
    },
    get state() {
      return state;
    },
    get waiting() {
      return outbox.size;
    },
    close: () => closing.abort(),
    done,
  };
}
