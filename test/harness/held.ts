import http from 'node:http';
import http2 from 'node:http2';

/** A silent idle HTTP/1 connection and a silent idle HTTP/2 one: what a drain has to end by itself. */
export class HeldClients {
  readonly http1: http.Agent;
  readonly http2: http2.ClientHttp2Session;
  /** Epoch milliseconds of the GOAWAY. */
  readonly goaway: Promise<number>;

  private constructor(agent: http.Agent, session: http2.ClientHttp2Session) {
    this.http1 = agent;
    this.http2 = session;
    this.goaway = new Promise((resolve) => session.once('goaway', () => resolve(Date.now())));
  }

  static async open(port: number): Promise<HeldClients> {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    await new Promise<void>((resolve, reject) => {
      const call = http.get({ agent, port, host: '127.0.0.1' }, (response) => {
        response.resume().on('end', resolve);
      });
      call.on('error', reject);
    });
    const session = http2.connect(`http://127.0.0.1:${port}`);
    session.on('error', () => {});
    await new Promise<void>((resolve, reject) => {
      const stream = session.request({ ':path': '/' });
      stream.on('error', reject);
      stream.on('end', resolve);
      stream.resume().end();
    });
    return new HeldClients(agent, session);
  }

  close(): void {
    this.http1.destroy();
    this.http2.destroy();
  }
}
