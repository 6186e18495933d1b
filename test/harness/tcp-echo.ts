import net from 'node:net';

/** A TCP connection that asks when it is told to, and must not be cut. */
export class TcpEcho {
  readonly ids: string[] = [];
  /** `ip:port` of the client. */
  readonly local: string;
  readonly #socket: net.Socket;
  #data = '';

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    this.local = `${socket.localAddress}:${socket.localPort}`;
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      this.#data += chunk;
    });
    socket.on('error', () => {});
  }

  static async open(port: number): Promise<TcpEcho> {
    const socket = net.connect(port, '127.0.0.1');
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const echo = new TcpEcho(socket);
    await echo.echo('at first');
    return echo;
  }

  async echo(text: string): Promise<void> {
    const id = `held/${text}/${Date.now()}`;
    this.ids.push(id);
    this.#socket.write(`${id}\n`);
    while (!this.#data.endsWith(`${id}\n`)) {
      if (this.#socket.destroyed || this.#socket.readableEnded) throw new Error(`cut before the echo of ${text}`);
      await Promise.race([
        new Promise((resolve) => this.#socket.once('data', resolve)),
        new Promise((resolve) => this.#socket.once('close', resolve)),
      ]);
    }
  }

  async close(): Promise<void> {
    this.#socket.end();
    await new Promise((resolve) => this.#socket.once('close', resolve));
  }
}
