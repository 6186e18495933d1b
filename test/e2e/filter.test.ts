import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { AdminConnection } from '@sluice/agent/witnesses/admin';
import { UnknownRequests } from '@sluice/agent/witnesses/unknown-requests';
import { type Connection, DEFAULT_POLICY, type DrainOrder, MAX_REPORT_BYTES } from '@sluice/contract';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { EPOCH, type Rig, rig, WEB } from './filter-rig.ts';

function drainOrder(version: number, change: Partial<DrainOrder> = {}): DrainOrder {
  return {
    v: 1,
    upgradeId: 'u1',
    epoch: EPOCH,
    version,
    action: 'drain',
    policy: DEFAULT_POLICY,
    cutoffAgeMs: 0,
    issuedAt: 1_700_000_000_000,
    ...change,
  };
}

/** `ip:port` of a socket's own end, as the filter names it. */
const own = (socket: net.Socket) => `${socket.localAddress}:${socket.localPort}`;

function echoOn(socket: net.Socket) {
  return async (text: string) => {
    socket.write(text);
    let back = '';
    while (back.length < text.length) back += String((await once(socket, 'data'))[0]);
    return back;
  };
}

describe.each(['1.40.0', '1.36.4'])('the filter in Envoy %s', (version) => {
  let r: Rig;
  const clients: { destroy(): void }[] = [];

  beforeAll(async () => {
    r = await rig(version);
  });
  afterAll(() => r?.close());
  afterEach(async () => {
    r.upstream.release();
    for (const client of clients.splice(0)) client.destroy();
    await r.agent.seen('all closed', () => (r.agent.table.open() === 0 ? true : undefined));
  });

  /** One HTTP/1 connection; `get` uses it again and again. */
  async function http1() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    clients.push(agent);
    const get = (path: string) => {
      const { promise, resolve, reject } = Promise.withResolvers<{ status: number; peer: string }>();
      const request = http.get({ port: r.httpPort, host: '127.0.0.1', path, agent }, (response) => {
        const peer = own(response.socket);
        response.resume().on('end', () => resolve({ status: response.statusCode ?? 0, peer }));
      });
      request.on('error', reject);
      return promise;
    };
    return { get, peer: (await get('/')).peer };
  }

  async function h2() {
    const session = http2.connect(`http://127.0.0.1:${r.httpPort}`);
    session.on('error', () => {});
    clients.push(session);
    const get = async (path: string) => {
      const stream = session.request({ ':path': path });
      const [headers] = await once(stream, 'response');
      stream.resume();
      await once(stream, 'end');
      return Number(headers[':status']);
    };
    await get('/');
    return { get, session, peer: own(session.socket as net.Socket) };
  }

  async function webSocket() {
    const headers = { connection: 'upgrade', upgrade: 'websocket' };
    const request = http.get({ port: r.httpPort, host: '127.0.0.1', path: '/ws', headers, agent: false });
    const [, socket] = (await once(request, 'upgrade')) as [http.IncomingMessage, net.Socket];
    socket.on('error', () => {});
    clients.push(socket);
    return { socket, echo: echoOn(socket), peer: own(socket) };
  }

  async function tcp() {
    const socket = net.connect(r.tcpPort, '127.0.0.1');
    socket.on('error', () => {});
    clients.push(socket);
    await once(socket, 'connect');
    const echo = echoOn(socket);
    await echo('begin');
    return { socket, echo, peer: own(socket) };
  }

  const of = (peer: string) => r.agent.table.connections().find((c) => c.peer === peer);
  const seen = (peer: string, test: (c: Connection) => boolean = () => true) =>
    r.agent.seen(`connection of ${peer}`, () => {
      const found = of(peer);
      return found !== undefined && test(found) ? found : undefined;
    });
  const unseen = (peer: string) =>
    r.agent.seen(`end of ${peer}`, () => (r.agent.table.complete() && of(peer) === undefined ? true : undefined));

  it('knows each connection by peer, listener and kind, and by whom it ended', async () => {
    r.agent.table.subscribe(60_000);
    const before = { ...r.agent.table.closedBy };
    const [one, two, ws, raw] = await Promise.all([http1(), h2(), webSocket(), tcp()]);
    const web = { epoch: EPOCH, listener: WEB, local: `127.0.0.1:${r.httpPort}` };
    // In the steady state nobody looks at requests, but at upgrades.
    expect(await seen(one.peer)).toMatchObject({ ...web, protocol: 'unknown' });
    expect(await seen(two.peer)).toMatchObject({ ...web, protocol: 'unknown' });
    const upgraded = await seen(ws.peer, (c) => c.protocol === 'upgrade');
    expect(upgraded).toMatchObject({ ...web, protocol: 'upgrade', inFlight: 1 });
    const plain = { epoch: EPOCH, listener: 'raw', local: `127.0.0.1:${r.tcpPort}`, protocol: 'tcp' };
    expect(await seen(raw.peer)).toMatchObject(plain);
    await r.agent.seen('a whole table', () => (r.agent.table.complete() ? true : undefined));
    expect(r.agent.table.open()).toBe(4);
    expect(Math.abs((of(raw.peer)?.openedAt ?? 0) - Date.now())).toBeLessThan(60_000);

    expect(await ws.echo('x'.repeat(1000))).toHaveLength(1000);
    await seen(ws.peer, (c) => (c.bytes ?? 0) >= 2000 && c.lastActivityAt !== undefined);

    ws.socket.end();
    raw.socket.end();
    await Promise.all([unseen(ws.peer), unseen(raw.peer)]);
    expect(r.agent.table.closedBy.peer).toBeGreaterThan(before.peer);
    expect(r.agent.table.faults).toBe(0);
  });

  it('closes exactly the connection that it is told to', async () => {
    r.agent.table.subscribe(60_000);
    const before = r.agent.table.closedBy.command;
    const [first, second, one, other] = [await tcp(), await tcp(), await http1(), await http1()];
    const [victim, idle] = [await seen(first.peer), await seen(one.peer)];
    const ended = once(first.socket, 'close');
    r.agent.table.close([victim.id, idle.id, '987654321']);
    await ended;
    await Promise.all([unseen(first.peer), unseen(one.peer)]);
    expect(r.agent.table.closedBy.command).toBe(before + 2);
    expect(await second.echo('still here')).toBe('still here');
    expect((await other.get('/')).peer).toBe(other.peer);
    expect((await one.get('/')).peer).not.toBe(one.peer);
  });

  it('lets traffic go on while the agent is away, refuses or is new, and then tells everything again', async () => {
    r.agent.table.subscribe(60_000);
    const [one, raw] = await Promise.all([http1(), tcp()]);
    await Promise.all([seen(one.peer), seen(raw.peer)]);
    await r.agent.kill();
    for (let i = 0; i < 500; i++) expect((await one.get('/')).status).toBe(200);
    const late = await tcp();
    expect(await raw.echo('on')).toBe('on');
    r.agent.status = 503;
    await r.agent.listen();
    const refusing = r.agent.reports.length;
    expect((await one.get('/')).status).toBe(200);
    r.agent.status = 200;
    // As after a restart of the agent: it knows nothing.
    r.agent.table.expire(Date.now() + 3_600_000);
    expect(r.agent.table.open()).toBe(0);
    for (const c of [one, raw, late]) await seen(c.peer);
    expect(r.agent.reports.length).toBeGreaterThan(refusing);
    expect((await one.get('/')).peer).toBe(one.peer);
  });

  it('relays the drain order until it is acknowledged, and knows what is in flight from then on', async () => {
    const [one, two, ws, silent] = [await http1(), await h2(), await webSocket(), await http1()];
    // Begun before the order: what is in flight on this connection is not known.
    const early = r.upstream.holding();
    const before = silent.get('/hold/early');
    await early;

    await r.order({ ...drainOrder(3), epoch: EPOCH - 1 });
    await r.order('{"v":1,"version":');
    const relayed = new Promise<DrainOrder>((resolve) => {
      r.agent.table.onOrder = resolve;
    });
    await r.order(drainOrder(5));
    expect(await relayed).toEqual(drainOrder(5));
    await r.agent.seen('every worker has it', () => (r.agent.table.orderReached(5) ? true : undefined));
    await r.agent.seen('a whole table', () =>
      r.agent.table.complete() && r.agent.table.open() === 4 ? true : undefined,
    );
    // Acknowledged: from some report on no VM repeats it.
    const repeats = () => r.agent.reports.slice(-6).every((report) => report.records.every((x) => x.kind !== 'order'));
    await r.agent.seen('quiet about the order', () => (repeats() ? true : undefined));
    expect(of(silent.peer)).not.toHaveProperty('inFlight');
    expect(of(silent.peer)).toMatchObject({ protocol: 'unknown' });

    // Envoy counts two: the WebSocket, which the filter knows, and the request from before the order.
    const admin = new AdminConnection(`127.0.0.1:${r.adminPort}`);
    clients.push({ destroy: () => admin.close() });
    const unknown = new UnknownRequests();
    const bound = async (wanted: number) => {
      const before = r.agent.table.tally();
      expect(before.sinceOrder).toBe(5);
      unknown.read(before, (await admin.downstream()).requestsActive, Date.now());
      await r.agent.seen(`a bound of ${wanted}`, () =>
        unknown.bound(r.agent.table.tally(), Date.now()) === wanted ? true : undefined,
      );
    };
    await bound(1);

    const held = r.upstream.holding();
    const slow = one.get('/hold/1');
    await held;
    expect(await seen(one.peer, (c) => c.inFlight === 1)).toMatchObject({ protocol: 'http1' });
    const streams = [two.get('/hold/2'), two.get('/hold/3'), two.get('/hold/4')];
    expect(await seen(two.peer, (c) => c.inFlight === 3)).toMatchObject({ protocol: 'http2' });
    // A close that the request overtook is not obeyed.
    r.agent.table.close([of(one.peer)!.id]);
    expect(await two.get('/')).toBe(200);
    r.upstream.release();
    expect((await slow).status).toBe(200);
    expect(await Promise.all(streams)).toEqual([200, 200, 200]);
    expect((await before).status).toBe(200);
    await Promise.all([seen(one.peer, (c) => c.inFlight === 0), seen(two.peer, (c) => c.inFlight === 0)]);
    await bound(0);

    // An upgrade passes both HTTP parts and is one request.
    const late = await webSocket();
    // A report may fall between its connect and its upgrade.
    expect(await seen(late.peer, (c) => c.protocol === 'upgrade')).toMatchObject({ inFlight: 1 });
    expect(await ws.echo('on')).toBe('on');

    const stopped = new Promise<DrainOrder>((resolve) => {
      r.agent.table.onOrder = resolve;
    });
    await r.order(drainOrder(6, { action: 'stop' }));
    expect((await stopped).action).toBe('stop');
    await r.agent.seen('no order in force', () => (r.agent.reports.at(-1)?.draining === false ? true : undefined));
    expect(r.agent.table.faults).toBe(0);
    expect(r.agent.refused).toBe(0);
  });

  it('splits what does not fit into one report', async () => {
    const sockets = await Promise.all(
      Array.from({ length: 3_000 }, () => {
        const socket = net.connect(r.httpPort, '127.0.0.1');
        clients.push(socket);
        return once(socket, 'connect');
      }),
    );
    r.agent.table.subscribe(60_000);
    await r.agent.seen('all of them', () =>
      r.agent.table.complete() && r.agent.table.connections().length === sockets.length ? true : undefined,
    );
    // As after a restart of the agent: each VM has to tell all of its connections at once.
    r.agent.table.expire(Date.now() + 3_600_000);
    await r.agent.seen('all of them again', () =>
      r.agent.table.complete() && r.agent.table.connections().length === sockets.length ? true : undefined,
    );
    expect(r.agent.reports.some((report) => report.snapshotFirst && report.more)).toBe(true);
    expect(r.agent.largest).toBeLessThanOrEqual(MAX_REPORT_BYTES);
    expect(r.agent.table.faults).toBe(0);
  });

  it('keeps its memory flat', async () => {
    const rss = async () =>
      Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${r.envoy.pid}/status`, 'utf8'))?.[1]) / 1024;
    r.agent.table.subscribe(120_000);
    await r.order(drainOrder(7));
    await r.agent.seen('the order', () => (r.agent.table.order()?.version === 7 ? true : undefined));
    const round = async (requests: number) => {
      const all = await Promise.all(Array.from({ length: 10 }, h2));
      await Promise.all(
        all.map(async (client) => {
          for (let i = 0; i < requests / 10; i++) await client.get('/');
        }),
      );
      for (const client of all) client.session.destroy();
    };
    await round(10_000);
    const warm = await rss();
    await round(20_000);
    // The collector's slack and Envoy's own buffers; 20,000 leaked contexts of 100 bytes alone would be more per worker.
    expect((await rss()) - warm).toBeLessThan(6);
  });
});
