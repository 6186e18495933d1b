import net from 'node:net';

/** One address for several servers, as a Service is: each connection goes to the next one that listens. */
export class Balancer {
  readonly port: number;
  readonly #host: string;
  readonly #targets: readonly number[];
  readonly #server: net.Server;
  readonly #open = new Set<net.Socket>();
  #next = 0;

  static async start(port: number, targets: readonly number[], host = '127.0.0.1'): Promise<Balancer> {
    const balancer = new Balancer(port, targets, host);
    await new Promise<void>((resolve) => balancer.#server.listen(port, host, resolve));
    return balancer;
  }

  private constructor(port: number, targets: readonly number[], host: string) {
    this.port = port;
    this.#host = host;
    this.#targets = targets;
    this.#server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) =>
      this.#connect(client, this.#targets.length),
    );
  }

  stop(): void {
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
  }

  #connect(client: net.Socket, tries: number): void {
    this.#open.add(client);
    client.once('close', () => this.#open.delete(client));
    const port = this.#targets[this.#next++ % this.#targets.length] as number;
    const server = net.connect({ port, host: this.#host, allowHalfOpen: true });
    let connected = false;
    server.once('connect', () => {
      connected = true;
      client.pipe(server);
      server.pipe(client);
      client.resume();
    });
    server.on('error', () => {
      if (!connected && tries > 1) this.#connect(client, tries - 1);
      else client.destroy();
    });
    server.on('close', () => {
      if (connected) client.destroy();
    });
    client.on('error', () => server.destroy());
    client.on('close', () => server.destroy());
  }
}
