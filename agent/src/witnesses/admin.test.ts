import { once } from 'node:events';
import http from 'node:http';
import net, { type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AdminConnection } from './admin.ts';

const STATS = `http.admin.downstream_rq_active: 1
http.web.downstream_rq_active: 2
http.api.downstream_rq_active: 3
listener.0.0.0.0_80.downstream_cx_active: 7
listener.0.0.0.0_80.worker_0.downstream_cx_active: 4
listener.0.0.0.0_80.worker_1.downstream_cx_active: 3
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
listener.admin_api.downstream_cx_active: 5
listener.envoy_internal_loop.downstream_cx_active: 9
`;

describe('a held admin connection', () => {
  let epoch = 3;
  let stats = STATS;
  let silent = false;
  const sockets = new Set<Socket>();
  const server = http.createServer((request, response) => {
    if (silent) return;
    if (request.url === '/server_info') {
      response.end(JSON.stringify({ command_line_options: { base_id: '8', restart_epoch: epoch } }));
    } else if (request.url?.startsWith('/stats')) response.end(stats);
    else if (request.url === '/ready') response.writeHead(503).end('PRE_INITIALIZING');
    else response.writeHead(404).end();
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  let admin: AdminConnection;

  beforeEach(async () => {
    [epoch, stats, silent] = [3, STATS, false];
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    admin = new AdminConnection(`127.0.0.1:${(server.address() as AddressInfo).port}`, { baseId: 8, restartEpoch: 3 });
  });

  afterEach(async () => {
    admin.close();
    if (!server.listening) return;
    const closed = new Promise((done) => server.close(done));
    server.closeAllConnections();
    await closed;
  });

  it('counts each downstream connection and request once, and none of the admin or of internal listeners', async () => {
    expect(await admin.downstream()).toEqual({ open: 12, requestsActive: 5 });
  });

  it('uses one connection for all requests', async () => {
    await Promise.all([admin.downstream(), admin.ready(), admin.downstream()]);
    expect(await admin.ready()).toBe(false);
    expect(sockets.size).toBe(1);
  });

  it('goes on answering when the listener is closed, and says so when the connection is lost', async () => {
    await admin.downstream();
    // As Envoy does it: http.Server's own close would end the idle connections too.
    net.Server.prototype.close.call(server);
    expect((await admin.downstream()).open).toBe(12);
    for (const socket of sockets) socket.destroy();
    await expect(admin.downstream()).rejects.toThrow(/ECONNREFUSED|ECONNRESET|hang up/);
    await expect(admin.downstream()).rejects.toThrow(/ECONNREFUSED/);
  });

  it('refuses the admin of a newer epoch on the same address', async () => {
    await admin.downstream();
    epoch = 4;
    for (const socket of sockets) socket.destroy();
    await expect(admin.downstream()).rejects.toThrow();
    await expect(admin.downstream()).rejects.toThrow(/epoch 4; expected 8, 3/);
  });

  it('does not take stats that a matcher leaves out for none left', async () => {
    stats = 'http.web.downstream_rq_active: 0\n';
    await expect(admin.downstream()).rejects.toThrow(/stats matcher/);
  });

  it('gives a silent admin up after its bound', async () => {
    silent = true;
    await expect(admin.get('/stats', 20)).rejects.toThrow(/silent/);
  });
});
