import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { supportsLeave } from '@sluice/agent/binaries/leave-support';
import { AdminConnection } from '@sluice/agent/witnesses/admin';
import { type Connection, DEFAULT_POLICY, type DrainOrder } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { Http1Connection } from '../harness/load/http1-connection.ts';
import { EPOCH, type Rig, rig } from './filter-rig.ts';

const ORDER: DrainOrder = {
  v: 1,
  upgradeId: 'u1',
  epoch: EPOCH,
  version: 5,
  action: 'drain',
  policy: DEFAULT_POLICY,
  cutoffAgeMs: 0,
  issuedAt: 1_700_000_000_000,
};
const OF_EACH = 20;
const CHOSEN = 5;
const LIMIT_MS = 10_000;

/** A client of one connection: what it is told with an answer, and that it was told on its own. */
interface Client {
  readonly peer: string;
  /** One request; whether its answer told us to leave. */
  ask(path?: string): Promise<boolean>;
  /** The server told us to leave, or closed. */
  told(): boolean;
  readonly ended: Promise<unknown>;
}

// 1.38.3 has no V8, so no filter.
const CAN = ['1.40.0', '1.39.3', '1.37.0'];
describe.each([...CAN, '1.36.4'])('connections chosen one by one, Envoy %s', (version) => {
  let r: Rig;
  let admin: AdminConnection;
  const clients: { destroy(): void }[] = [];
  const leaked: string[] = [];

  beforeEach(async () => {
    r = await rig(version);
    admin = new AdminConnection(`127.0.0.1:${r.adminPort}`);
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    admin?.close();
    await r?.close();
    expect(leaked.splice(0)).toEqual([]);
  });

  /** No answer may carry a word of ours. */
  const look = (headers: Iterable<readonly [string, unknown]>) => {
    for (const [name, value] of headers) if (/sluice/i.test(`${name} ${String(value)}`)) leaked.push(name);
  };

  async function http1(): Promise<Client> {
    const socket = net.connect(r.httpPort, '127.0.0.1');
    clients.push(socket);
    await once(socket, 'connect');
    const connection = new Http1Connection(socket);
    let told = false;
    const ask = async (path = '/') => {
      const answer = await connection.request(`GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`, undefined, LIMIT_MS);
      look(answer.headers);
      expect(answer.status).toBe(200);
      told ||= answer.headers.get('connection') === 'close';
      return told;
    };
    const peer = `${socket.localAddress}:${socket.localPort}`;
    return { peer, ask, told: () => told || connection.done, ended: connection.closed };
  }

  async function h2(): Promise<Client & { readonly session: http2.ClientHttp2Session }> {
    const session = http2.connect(`http://127.0.0.1:${r.httpPort}`);
    session.on('error', () => {});
    clients.push(session);
    let told = false;
    session.on('goaway', () => (told = true));
    const ended = once(session, 'close');
    await once(session, 'connect');
    const ask = async (path = '/') => {
      const stream = session.request({ ':path': path });
      const [headers] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
      look(Object.entries(headers));
      expect(headers[':status']).toBe(200);
      stream.resume();
      await once(stream, 'end');
      return told;
    };
    const socket = session.socket as net.Socket;
    return { peer: `${socket.localAddress}:${socket.localPort}`, ask, told: () => told, ended, session };
  }

  const known = (peer: string, test: (c: Connection) => boolean = () => true) =>
    r.agent.seen(`connection of ${peer}`, () => r.agent.table.connections().find((c) => c.peer === peer && test(c)));

  /** Every VM has answered for what it was told by now: two reports, so that a reply lies between. */
  const obeyed = () => {
    const from = r.agent.reports.length;
    const reports = new Map<string, number>();
    for (const { vm, open } of r.agent.reports) if (open > 0) reports.set(vm, 0);
    return r.agent.seen('two more reports of each VM', () => {
      for (const vm of reports.keys()) reports.set(vm, r.agent.reports.slice(from).filter((x) => x.vm === vm).length);
      return [...reports.values()].every((n) => n >= 2) ? true : undefined;
    });
  };

  const order = async () => {
    await r.order(ORDER);
    await r.agent.seen('every worker has the order', () => (r.agent.table.orderReached(5) ? true : undefined));
    await r.agent.seen('a whole table', () => (r.agent.table.complete() ? true : undefined));
  };

  /** The slot of the Lua filter is in each filter list once, and in that of upgrades. */
  const leave = async () => {
    const reloads = async () =>
      [...(await admin.get('/stats?filter=sluice.leave.config_reload')).matchAll(/config_reload: (\d+)/g)].reduce(
        (sum, [, n]) => sum + Number(n),
        0,
      );
    const before = await reloads();
    await r.leave();
    await expect.poll(reloads).toBeGreaterThan(before);
  };

  const mark = async (chosen: readonly Client[]) => {
    const ids = await Promise.all(chosen.map(async ({ peer }) => (await known(peer)).id));
    r.agent.table.mark(ids);
    await obeyed();
  };

  it.runIf(CAN.includes(version))('exactly the marked ones are told to leave, with their next answer', async () => {
    await leave();
    const ones = await Promise.all(Array.from({ length: OF_EACH }, http1));
    const twos = await Promise.all(Array.from({ length: OF_EACH }, h2));
    const all: Client[] = [...ones, ...twos];
    await order();
    await Promise.all(all.map((c) => c.ask()));
    expect(r.agent.table.marks).toBe(true);
    const chosen = new Set<Client>([...ones.slice(3, 3 + CHOSEN), ...twos.slice(7, 7 + CHOSEN)]);
    await mark([...chosen]);
    expect(r.agent.table.connections().filter((c) => c.marked)).toHaveLength(chosen.size);
    // Marked is not told: nobody says a word on an idle connection.
    expect(all.filter((c) => c.told())).toEqual([]);
    const answers = await Promise.all([...chosen].map((c) => c.ask()));
    expect(answers.slice(0, CHOSEN)).not.toContain(false);
    // GOAWAY may come after the answer that it goes with; a session that was told ends when its streams have.
    await Promise.all([...chosen].map((c) => c.ended));
    expect([...chosen].every((c) => c.told())).toBe(true);
    const rest = all.filter((c) => !chosen.has(c));
    for (let i = 0; i < 20; i++) expect(await Promise.all(rest.map((c) => c.ask()))).not.toContain(true);
    expect(rest.filter((c) => c.told())).toEqual([]);
    await r.agent.seen('the rest', () => (r.agent.table.connections().length === rest.length ? true : undefined));
    expect(r.agent.table.faults).toBe(0);
  });

  it.runIf(CAN.includes(version))(
    'marked before the Lua filter is there: told by the first answer after it came, and no answer says more',
    async () => {
      const [one, two] = [await http1(), await h2()];
      await order();
      await Promise.all([one.ask(), two.ask()]);
      await mark([one, two]);
      for (let i = 0; i < 5; i++) expect([await one.ask(), await two.ask()]).toEqual([false, false]);
      await leave();
      await expect.poll(async () => (one.told() ? true : one.ask())).toBe(true);
      await expect.poll(async () => (two.told() ? true : two.ask())).toBe(true);
      await Promise.all([one.ended, two.ended]);
    },
  );

  it.runIf(CAN.includes(version))('a stream under way ends in its own time, a WebSocket lives on', async () => {
    await leave();
    const two = await h2();
    const headers = { connection: 'upgrade', upgrade: 'websocket' };
    const upgrade = http.get({ port: r.httpPort, host: '127.0.0.1', path: '/ws', headers, agent: false });
    const [, socket] = (await once(upgrade, 'upgrade')) as [http.IncomingMessage, net.Socket];
    clients.push(socket.on('error', () => {}));
    const peer = `${socket.localAddress}:${socket.localPort}`;
    await order();
    const stream = two.session.request({ ':path': '/drip' });
    await once(stream, 'response');
    await mark([two, { ...two, peer }]);
    expect(two.told()).toBe(false);
    const goaway = once(two.session, 'goaway');
    await two.ask();
    await goaway;
    let body = '';
    stream.on('data', (chunk) => (body += String(chunk)));
    r.upstream.release();
    await once(stream, 'end');
    expect(body).toBe('begin end');
    await two.ended;
    socket.write('still here');
    expect(String((await once(socket, 'data'))[0])).toBe('still here');
  });

  it('the binary says whether it can', async () => {
    expect(await supportsLeave(await envoyBinary(version))).toBe(CAN.includes(version));
  });

  it.skipIf(CAN.includes(version))(
    'marks and Lua do nothing where Envoy can not, and its log stays clean',
    async () => {
      await leave();
      const [one, two] = [await http1(), await h2()];
      await order();
      await Promise.all([one.ask(), two.ask()]);
      await mark([one, two]);
      for (let i = 0; i < 5; i++) expect([await one.ask(), await two.ask()]).toEqual([false, false]);
      expect(r.envoy.tail).not.toMatch(/\[(error|critical)\]/);
    },
  );

  it('cut closes exactly the chosen ones, with requests in flight', async () => {
    const [a, b, c, d] = [await http1(), await http1(), await h2(), await h2()];
    await order();
    const answers = [a, b, c, d].map((client) =>
      client.ask('/hold').then(
        () => 'answered',
        () => 'cut',
      ),
    );
    await r.agent.seen('four in flight', () =>
      r.agent.table.connections().filter((x) => x.inFlight === 1).length === 4 ? true : undefined,
    );
    r.agent.table.cut([(await known(a.peer)).id, (await known(c.peer)).id, '987654']);
    await Promise.all([a.ended, c.ended]);
    await r.agent.seen('two left', () => (r.agent.table.connections().length === 2 ? true : undefined));
    r.upstream.release();
    // The HTTP/2 library tells a cut stream's end only as a response that never came.
    expect(await Promise.all([answers[0], answers[1], answers[3]])).toEqual(['cut', 'answered', 'answered']);
    expect(r.agent.table.closedBy.command).toBe(2);
    expect([b.told(), d.told()]).toEqual([false, false]);
    await Promise.all([b.ask(), d.ask()]);
  });

  it('the route of the newest request arrives, of an upgrade from its birth', async () => {
    r.agent.table.subscribe(60_000);
    const headers = { connection: 'upgrade', upgrade: 'websocket' };
    const upgrade = http.get({ port: r.httpPort, host: '127.0.0.1', path: '/pay/ws', headers, agent: false });
    const [, socket] = (await once(upgrade, 'upgrade')) as [http.IncomingMessage, net.Socket];
    clients.push(socket.on('error', () => {}));
    await known(`${socket.localAddress}:${socket.localPort}`, (c) => c.protocol === 'upgrade' && c.route === 'pay');
    const [one, two] = [await http1(), await h2()];
    await Promise.all([one.ask('/pay'), two.ask('/pay')]);
    // The steady state looks at no request.
    expect(await known(one.peer)).not.toHaveProperty('route');
    await order();
    await Promise.all([one.ask('/pay'), two.ask('/pay')]);
    await Promise.all([one, two].map((c) => known(c.peer, (k) => k.route === 'pay')));
    // A route without a name is none.
    await two.ask('/other');
    expect(await known(two.peer, (k) => k.inFlight === 0 && k.route === undefined)).not.toHaveProperty('route');
    expect((await known(one.peer)).route).toBe('pay');
  });
});
