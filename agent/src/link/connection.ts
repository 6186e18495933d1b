import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import {
  type ControllerMessage,
  encodeLine,
  type Hello,
  LINK_PATH,
  LINK_PROTOCOL,
  MAX_LINE_BYTES,
  NdjsonDecoder,
  SluiceError,
  toSluiceError,
} from '@sluice/contract';
import { readControllerMessage } from './messages.ts';

export const HANDSHAKE_MS = 5_000;

export interface ConnectionEvents {
  readonly message: (message: ControllerMessage) => void;
  /** A line that was not understood; the connection goes on. */
  readonly odd: (error: SluiceError) => void;
  /** What was held back may be written now. */
  readonly drain: () => void;
}

/** `moved`: the address of the controller that the proxy belongs to now. */
export interface Ended {
  readonly reason: string;
  readonly moved?: string;
}

/** Instead of a welcome: the proxy belongs to another controller. */
export class Moved extends SluiceError {
  readonly url: string;

  constructor(from: string, url: string) {
    super('CONTROLLER_AWAY', `${from}: the proxy belongs to ${url}`);
    this.url = url;
  }
}

/** One connection to one controller, from `welcome` to its end. */
export interface Connection {
  readonly version: number;
  /** False when the line was longer than the bound and was not sent. */
  write(message: object): boolean;
  /** The socket takes no more for now; `drain` follows. */
  readonly full: boolean;
  /** When the last byte of the other side came. */
  readonly heardAt: number;
  /** Resolves with why it ended, never rejects. */
  readonly ended: Promise<Ended>;
  close(): void;
}

/**
 * Connects, says hello and waits for the welcome, all within HANDSHAKE_MS. Rejects with CONTROLLER_AWAY, with Moved, or with the
 * controller's own refusal. `pingMs`: sends a ping when nothing was sent for so long, gives up after three times as long
 * without a byte from the other side.
 */
export async function connect(
  url: string,
  hello: Hello,
  events: ConnectionEvents,
  pingMs: number,
  signal: AbortSignal,
): Promise<Connection> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(HANDSHAKE_MS)]);
  const { socket, head } = await upgrade(url, limit);
  return await new Promise<Connection>((resolve, reject) => {
    const decoder = new NdjsonDecoder();
    const ended = Promise.withResolvers<Ended>();
    let welcomed = false;
    let heardAt = Date.now();
    let saidAt = Date.now();
    const end = (reason: string, moved?: string): void => {
      clearInterval(timer);
      signal.removeEventListener('abort', onAbort);
      limit.removeEventListener('abort', onLimit);
      socket.destroy();
      ended.resolve({ reason, ...(moved !== undefined && { moved }) });
      if (welcomed) return;
      reject(moved === undefined ? new SluiceError('CONTROLLER_AWAY', `${url}: ${reason}`) : new Moved(url, moved));
    };
    const write = (message: object): boolean => {
      const line = encodeLine(message);
      if (Buffer.byteLength(line) > MAX_LINE_BYTES) return false;
      saidAt = Date.now();
      socket.write(line);
      return true;
    };
    const take = (message: ControllerMessage): void => {
      if (message.type === 'refused' && !welcomed) {
        welcomed = true;
        end('refused');
        reject(refusal(url, message));
      } else if (message.type === 'welcome' && !welcomed) {
        welcomed = true;
        limit.removeEventListener('abort', onLimit);
        resolve({
          version: message.v,
          write,
          get full() {
            return socket.writableNeedDrain || socket.destroyed;
          },
          get heardAt() {
            return heardAt;
          },
          ended: ended.promise,
          close: () => end('closed here'),
        });
      } else if (message.type === 'moved') {
        end(`the proxy belongs to ${message.url}`, movedTo(url, message.url));
      } else if (message.type !== 'ping') events.message(message);
    };
    const read = (chunk: Buffer): void => {
      heardAt = Date.now();
      let lines: Record<string, unknown>[];
      try {
        lines = decoder.push(chunk);
      } catch (thrown) {
        // Where a line ends is not known any more: only a new connection helps.
        end(toSluiceError(thrown).message);
        return;
      }
      for (const line of lines) {
        try {
          const message = readControllerMessage(line);
          if (message !== undefined) take(message);
        } catch (thrown) {
          events.odd(toSluiceError(thrown));
        }
      }
    };
    const timer = setInterval(() => {
      const now = Date.now();
      if (now - heardAt > 3 * pingMs) end(`silent for ${now - heardAt} ms`);
      else if (now - saidAt >= pingMs) write({ type: 'ping' });
    }, pingMs / 2);
    timer.unref();
    const onAbort = (): void => end('stopped');
    const onLimit = (): void => end(`no welcome within ${HANDSHAKE_MS} ms`);
    signal.addEventListener('abort', onAbort, { once: true });
    limit.addEventListener('abort', onLimit, { once: true });
    socket.on('data', read);
    socket.on('drain', () => events.drain());
    socket.on('error', (error) => end(error.message));
    socket.on('close', () => end('closed by the controller'));
    write(hello);
    if (head.length > 0) read(head);
  });
}

/**
 * Where to go. An address that is none counts as the end of the link and no more, and so does one that would carry the token in
 * plain text where it was encrypted so far.
 */
function movedTo(from: string, url: string): string | undefined {
  const target = URL.canParse(url) ? new URL(url).protocol : '';
  const allowed = new URL(from).protocol === 'https:' ? ['https:'] : ['http:', 'https:'];
  return allowed.includes(target) ? url : undefined;
}

function refusal(url: string, message: { code: string; message: string }): SluiceError {
  const known = message.code.replace(/^SLUICE_/, '');
  const code = known === 'SLOT_TAKEN' || known === 'PROTOCOL_UNSUPPORTED' ? known : 'IDENTITY_REFUSED';
  return new SluiceError(code, `${url} refused this agent: ${message.message}`);
}

function upgrade(url: string, signal: AbortSignal): Promise<{ socket: Duplex; head: Buffer }> {
  return new Promise((resolve, reject) => {
    const away = (why: string): void => reject(new SluiceError('CONTROLLER_AWAY', `${url}: ${why}`));
    const base = new URL(url);
    const request = (base.protocol === 'https:' ? httpsRequest : httpRequest)({
      protocol: base.protocol,
      hostname: base.hostname.replace(/^\[|\]$/g, ''),
      ...(base.port === '' ? {} : { port: base.port }),
      path: `${base.pathname.replace(/\/$/, '')}${LINK_PATH}`,
      headers: { Connection: 'Upgrade', Upgrade: LINK_PROTOCOL },
      agent: false,
      signal,
    });
    request.on('upgrade', (response, socket, head) => {
      if (response.headers.upgrade?.toLowerCase() === LINK_PROTOCOL) {
        resolve({ socket, head });
        return;
      }
      socket.destroy();
      away(`expected the protocol ${LINK_PROTOCOL}, found ${response.headers.upgrade ?? 'none'}`);
    });
    request.on('response', (response) => {
      response.destroy();
      away(`expected HTTP 101, found ${response.statusCode}; is this the controller's API port?`);
    });
    request.on('error', (error) => away(error.message));
    request.end();
  });
}
