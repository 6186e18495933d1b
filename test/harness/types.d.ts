/** The part of `ws` that the tests use; the package ships no types. */
declare module 'ws' {
  import type { EventEmitter } from 'node:events';
  import type { Server } from 'node:http';
  export class WebSocket extends EventEmitter {
    constructor(url: string, options?: { handshakeTimeout?: number; perMessageDeflate?: boolean });
    readonly readyState: number;
    send(data: string): void;
    close(code?: number): void;
    terminate(): void;
  }
  export class WebSocketServer extends EventEmitter {
    constructor(options: { server: Server });
    readonly clients: Set<WebSocket>;
    on(event: 'connection', listener: (socket: WebSocket) => void): this;
  }
}
