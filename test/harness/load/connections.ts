import { AsyncLocalStorage } from 'node:async_hooks';
import diagnostics from 'node:diagnostics_channel';
import type net from 'node:net';
import { synsSentAgain } from '../tcp-info.ts';

/** Linux sends a lost SYN again after 1 s: a connect that takes this long was lost once. */
export const SLOW_CONNECT_MS = 900;

export interface LoggedConnection {
  readonly client: string;
  readonly localPort: number;
  readonly remotePort: number;
  readonly openedAt: number;
  endedAt?: number;
}

export interface ConnectFailure {
  readonly client: string;
  readonly what: string;
  readonly at: number;
}

const client = new AsyncLocalStorage<string>();

/** Whatever `work` connects, even inside a library and later, is logged under that name. */
export function asClient<T>(name: string, work: () => T): T {
  return client.run(name, work);
}

/**
 * A log of each TCP connection that the clients of this process open, from Node's own diagnostics channel: so libraries
 * that hide their sockets (gRPC) are logged too. The ends come from the clients' clock.
 */
export class ConnectionLog {
  readonly connections: LoggedConnection[] = [];
  readonly onFailure: (failure: ConnectFailure) => void;
  private readonly listener = (message: unknown) => this.add((message as { socket: net.Socket }).socket);

  constructor(onFailure: (failure: ConnectFailure) => void) {
    this.onFailure = onFailure;
    diagnostics.subscribe('net.client.socket', this.listener);
  }

  close(): void {
    diagnostics.unsubscribe('net.client.socket', this.listener);
  }

  private add(socket: net.Socket): void {
    const name = client.getStore();
    if (name === undefined) return;
    const begun = Date.now();
    const onError = (error: Error) =>
      this.onFailure({ client: name, what: `connect failed: ${error.message}`, at: Date.now() });
    socket.once('error', onError);
    socket.once('connect', () => {
      socket.off('error', onError);
      const openedAt = Date.now();
      if (openedAt - begun > SLOW_CONNECT_MS && synsSentAgain(socket) !== 0) {
        this.onFailure({ client: name, what: `connect took ${openedAt - begun} ms (SYN sent again)`, at: openedAt });
      }
      const { localPort = 0, remotePort = 0 } = socket;
      const entry: LoggedConnection = { client: name, localPort, remotePort, openedAt };
      this.connections.push(entry);
      const end = () => {
        entry.endedAt ??= Date.now();
      };
      // 'end' = the peer's FIN was read: for us the connection has ended, also when our own FIN is still to be written.
      socket.once('end', end);
      socket.once('close', end);
    });
  }
}
