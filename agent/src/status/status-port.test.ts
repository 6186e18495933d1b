import { connect } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { agentMetrics } from './metrics.ts';
import { renderMetrics } from './prometheus.ts';
import { createStatusPort, type StatusPort } from './status-port.ts';

let port: StatusPort;
let ready = false;
let stats: (() => Promise<string>) | undefined;
let statsAsked = 0;
beforeEach(async () => {
  port = await createStatusPort('127.0.0.1:0', {
    live: () => ({ ok: true, text: 'ok' }),
    ready: () => ({ ok: ready, text: ready ? 'epoch 1 serves' : 'no epoch serves' }),
    proxyMetrics: () => {
      statsAsked++;
      return stats?.();
    },
    metrics: () =>
      renderMetrics(
        agentMetrics({
          now: 1_000,
          proxy: 'a"b',
          slot: '1',
          agentVersion: '0.1.0',
          epochs: [
            {
              epoch: 1,
              slot: '1',
              state: 'draining',
              version: '1.38.3',
              pid: 1,
              startedAt: 0,
              verdict: {
                safe: false,
                summary: '',
                at: 0,
                total: 5,
                protected: 2,
                held: [],
                holding: 0,
                witnesses: [
                  { name: 'kernel', open: 5, at: 0 },
                  { name: 'filter', at: 0, why: 'silent' },
                ],
                pastDeadline: false,
                estimate: { at: 1_000, endsAt: 3_500, observed: 2 },
                pacing: { told: 4, left: 2, perSecond: 10 },
                cost: { at: 1_000, residentBytes: 9, privateBytes: 7 },
              },
            },
          ],
          linkConnected: true,
          linkWaiting: 0,
          rssBytes: 1,
          reports: { reports: 3, refused: 1, reportBytes: 9 },
        }),
      ),
  });
});
afterEach(() => port.close());

const get = async (path: string): Promise<{ status: number; text: string }> => {
  const response = await fetch(`http://127.0.0.1:${port.port}${path}`);
  return { status: response.status, text: await response.text() };
};

test('readiness follows the epoch that serves, liveness does not', async () => {
  ready = false;
  expect((await get('/livez')).status).toBe(200);
  expect(await get('/readyz')).toEqual({ status: 503, text: 'no epoch serves\n' });
  ready = true;
  expect((await get('/healthz/ready')).status).toBe(200);
  expect((await get('/other')).status).toBe(404);
});

test('metrics are Prometheus text with escaped labels', async () => {
  const { text } = await get('/metrics');
  expect(text).toContain('sluice_agent_build_info{version="0.1.0",proxy="a\\"b",slot="1"} 1\n');
  expect(text).toContain('sluice_agent_drain_protected_connections{epoch="1"} 2\n');
  expect(text).toContain('sluice_agent_witness_connections{epoch="1",witness="kernel"} 5\n');
  expect(text).not.toContain('witness="filter"');
  expect(text).toContain('# TYPE sluice_agent_reports_total counter\n');
  expect(text).toContain('sluice_agent_drain_waiting_connections{epoch="1"} 2\n');
  expect(text).toContain('sluice_agent_drain_remaining_seconds{epoch="1"} 2.5\n');
  expect(text).toContain('sluice_agent_epoch_private_memory_bytes{epoch="1"} 7\n');
});

test.each(['nonsense', '127.0.0.1:99999', '127.0.0.1'])('refuses the address %s', async (address) => {
  await expect(createStatusPort(address, {} as never)).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
});

test('the stats of the Envoy that serves, asked of it once for all who ask meanwhile', async () => {
  expect(await get('/stats/prometheus')).toEqual({ status: 503, text: 'no Envoy serves\n' });
  stats = () => Promise.reject(new Error('its admin is silent'));
  expect(await get('/stats/prometheus')).toEqual({ status: 503, text: 'its admin is silent\n' });
  const { promise, resolve } = Promise.withResolvers<string>();
  const asked = Promise.withResolvers<void>();
  stats = () => {
    asked.resolve();
    return promise;
  };
  statsAsked = 0;
  const socket = connect(port.port, '127.0.0.1');
  const ask = 'GET /stats/prometheus HTTP/1.1\r\nhost: a\r\n';
  // Both are read in one turn.
  socket.write(`${ask}\r\n${ask}connection: close\r\n\r\n`);
  await asked.promise;
  resolve('envoy_server_live 1\n');
  let answers = '';
  for await (const chunk of socket) answers += chunk;
  expect(answers.match(/envoy_server_live 1/g)).toHaveLength(2);
  expect(statsAsked).toBe(1);
});
