import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { DEFAULT_ANALYSIS, RolloutMember } from '@sluice/contract';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { resolveConfig } from '../config.ts';
import { rolloutSpec } from '../testing/rollout-spec.ts';
import { PrometheusSource } from './prometheus.ts';
import { PrometheusClient } from './prometheus-client.ts';
import { DEFAULT_QUERIES, expand, type MemberLabels, type Sample, samplesOf, windowsOf } from './prometheus-query.ts';
import { newRollout, type RolloutState } from './state.ts';

const NOW = 2_000_000_000_000;
const PROXY: MemberLabels = { proxy: 'proxy' };
const signal = new AbortController().signal;

/** A rollout whose members were begun, and served at once, so many seconds ago; undefined: waits. */
function rollout(ages: readonly (number | undefined)[], analysis: Partial<typeof DEFAULT_ANALYSIS> = {}): RolloutState {
  const spec = rolloutSpec({}, { maxFailedRequests: 0, ...analysis });
  const members = ages.map((age, n): RolloutMember => {
    const at = age === undefined ? {} : { startedAt: NOW - age * 1_000, servedAt: NOW - age * 1_000 };
    const state = age === undefined ? 'waiting' : 'draining';
    return { name: `p${n}`, zone: '', state, since: 0, reason: '', failures: 0, crashes: 0, cut: 0, ...at };
  });
  return { ...newRollout('r', spec, 0), members };
}

const of = (values: Record<string, number>): Sample[] =>
  Object.entries(values).map(([proxy, value]) => ({ labels: { proxy }, value }));

function source(answer: (query: string) => Sample[], labels = PROXY, queries: { failedRequests?: string } = {}) {
  const asked: string[] = [];
  const client = {
    query: async (query: string) => {
      asked.push(query);
      return answer(query);
    },
  };
  return { asked, source: new PrometheusSource({ url: 'http://x', labels, everySeconds: 15, ...queries }, client) };
}

describe('the questions', () => {
  it('are limited to the members, by name or by Pod and namespace', () => {
    const window = { members: ['a.b', 'c|d'], seconds: 61 };
    expect(expand('sum by ($by) (x{$members}[$range])', PROXY, window)).toBe(
      'sum by (proxy) (x{proxy=~"a\\\\.b|c\\\\|d"}[61s])',
    );
    const pods = expand(
      'x{$members}[$range] $by',
      { pod: 'pod', namespace: 'ns' },
      { ...window, members: ['a.x.shop'] },
    );
    expect(pods).toBe('x{ns=~"shop",pod=~"a\\\\.x"}[61s] ns,pod');
  });

  it('reach back to the beginning of each member, and by half of that further at most', () => {
    const ages = fc.array(fc.integer({ min: 1, max: 600_000 }), { minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(ages, (all) => {
        const windows = windowsOf(rollout(all), NOW);
        expect(windows.flatMap((one) => one.members).toSorted()).toEqual(all.map((_, n) => `p${n}`).toSorted());
        for (const { members, seconds } of windows) {
          for (const name of members) {
            const age = all[Number(name.slice(1))] as number;
            expect(seconds).toBeGreaterThanOrEqual(age);
            expect(seconds).toBeLessThanOrEqual(age * 1.5);
          }
        }
        expect(windows.length).toBeLessThanOrEqual(34);
      }),
    );
  });

  it('begin anew at a resume', () => {
    const windows = windowsOf({ ...rollout([1_000]), judgedFrom: NOW - 5_000 }, NOW);
    expect(windows).toEqual([{ members: ['p0'], seconds: 5 }]);
  });
});

describe('the answers', () => {
  it('are a scalar or a vector; anything else is told', () => {
    const made = (resultType: string, result: unknown) =>
      samplesOf({ status: 'success', data: { resultType, result } });
    expect(made('scalar', [1, '2.5'])).toEqual([{ labels: {}, value: 2.5 }]);
    expect(made('vector', [{ metric: { a: 'b' }, value: [1, 'NaN'] }])).toEqual([
      { labels: { a: 'b' }, value: Number.NaN },
    ]);
    expect(() => made('matrix', [])).toThrow(/makes a matrix/);
    expect(() => made('scalar', [1, '+Inf'])).toThrow(/expected a number, found "\+Inf"/);
    expect(() => made('scalar', [1, 7])).toThrow(/expected a number/);
    expect(() => samplesOf({ status: 'error', error: 'parse error' })).toThrow(/parse error/);
    expect(() => samplesOf(null)).toThrow(/no success/);
  });

  it('are summed up over the members that were begun, and rounded', async () => {
    const { source: one, asked } = source((query) =>
      query.includes('p2') ? of({ p2: 0 }) : of({ p0: 1.07, p1: 2.2 }),
    );
    expect(await one.measure(rollout([100, 90, 10, undefined]), NOW, signal)).toEqual({ at: NOW, failedRequests: 3 });
    expect(asked).toHaveLength(2);
    expect(asked[0]).toContain(
      '{envoy_response_code_class="5",envoy_http_conn_manager_prefix!="admin",proxy=~"p0|p1"}[100s]',
    );
    expect(asked.join()).not.toContain('p3');
    const { source: little } = source(() => of({ p0: 0.2 }));
    expect(await little.measure(rollout([100]), NOW, signal)).toEqual({ at: NOW, failedRequests: 1 });
  });

  it('of a member that is not scraped are missed as soon as there should be some', async () => {
    const { source: one } = source(() => of({ p0: 0 }));
    expect(await one.measure(rollout([100, 59]), NOW, signal)).toEqual({ at: NOW, failedRequests: 0 });
    await expect(one.measure(rollout([100, 61]), NOW, signal)).rejects.toMatchObject({
      code: 'METRICS_UNKNOWN',
      message: expect.stringContaining('no samples of p1, found by label proxy'),
    });
    const { source: none } = source(() => []);
    await expect(none.measure(rollout([61]), NOW, signal)).rejects.toThrow('no samples of p0');
  });

  it('may be one number, of a query of the user', async () => {
    const own = { failedRequests: 'sum(lost{$members})' };
    const { source: one, asked } = source(() => [{ labels: {}, value: 4 }], PROXY, own);
    expect(await one.measure(rollout([100]), NOW, signal)).toEqual({ at: NOW, failedRequests: 4 });
    expect(asked).toEqual(['sum(lost{proxy=~"p0"})']);
    const many = [1, 2].map((value) => ({ labels: { code: String(value) }, value }));
    await expect(source(() => many, PROXY, own).source.measure(rollout([100]), NOW, signal)).rejects.toThrow('sum()');
    const nan = [{ labels: {}, value: Number.NaN }];
    await expect(source(() => nan, PROXY, own).source.measure(rollout([100]), NOW, signal)).rejects.toThrow('NaN');
  });

  it('of latency without requests judge nothing', async () => {
    const limits = { maxFailedRequests: null, maxP99Ms: 100 };
    const value = (n: number) => source(() => [{ labels: {}, value: n }]).source;
    expect(await value(80.123).measure(rollout([61], limits), NOW, signal)).toEqual({ at: NOW, p99Ms: 80.1 });
    expect(await value(Number.NaN).measure(rollout([59], limits), NOW, signal)).toEqual({ at: NOW });
    await expect(value(Number.NaN).measure(rollout([61], limits), NOW, signal)).rejects.toThrow(
      'no requests within 60 s at p0',
    );
    await expect(source(() => []).source.measure(rollout([61], limits), NOW, signal)).rejects.toThrow('no samples');
  });

  it('before the first member is begun are of all, and only have to be there', async () => {
    const waiting = rollout([undefined, undefined], { maxP99Ms: 100 });
    const { source: one, asked } = source(() => of({ p0: 7 }));
    expect(await one.measure(waiting, NOW, signal)).toEqual({ at: NOW });
    expect(asked.every((query) => query.includes('p0|p1') && query.includes('[60s]'))).toBe(true);
    expect(asked).toHaveLength(2);
    await expect(source(() => []).source.measure(waiting, NOW, signal)).rejects.toThrow('no samples of p0, p1');
  });
});

describe('the client', () => {
  const servers: http.Server[] = [];
  const dir = mkdtempSync(path.join(tmpdir(), 'sluice-prometheus-'));
  afterEach(() => {
    for (const one of servers.splice(0)) one.close().closeAllConnections();
    rmSync(dir, { recursive: true, force: true });
  });

  async function serve(handler: http.RequestListener): Promise<string> {
    const server = http.createServer(handler);
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  it('posts the query with its token, to a base that may have a path', async () => {
    let seen = '';
    const url = await serve((request, response) => {
      request.on('data', (chunk) => {
        seen += `${request.method} ${request.url} ${request.headers.authorization} ${chunk}`;
      });
      request.on('end', () => response.end('{"status":"success","data":{"resultType":"scalar","result":[1,"3"]}}'));
    });
    const bearerTokenFile = path.join(dir, 'token');
    writeFileSync(bearerTokenFile, 'secret\n');
    const client = new PrometheusClient({ url: `${url}/prom/`, bearerTokenFile });
    expect(await client.query('up{a="b"}', signal)).toEqual([{ labels: {}, value: 3 }]);
    expect(seen).toBe('POST /prom/api/v1/query Bearer secret query=up%7Ba%3D%22b%22%7D&timeout=10s');
    client.close();
  });

  it('tells what is wrong by one code, and reads no endless answer', async () => {
    const answers: http.RequestListener[] = [
      (_, response) => response.writeHead(302, { location: '/elsewhere' }).end('moved'),
      (_, response) => response.writeHead(400).end('{"status":"error","error":"parse error: no"}'),
      (request) => request.socket.destroy(),
      (_, response) => {
        const more = (): boolean => response.write(Buffer.alloc(1 << 20, 32));
        response.on('drain', more);
        more();
      },
      () => undefined,
    ];
    const found: string[] = [];
    for (const answer of answers) {
      const client = new PrometheusClient({ url: await serve(answer) });
      // The last one never answers: it is left when the caller leaves.
      const patience = answer === answers.at(-1) ? AbortSignal.timeout(50) : signal;
      await client.query('up', patience).catch((error) => found.push(`${error.code}: ${error.message}`));
      client.close();
    }
    const expected = [
      /status 302, "moved"/,
      /parse error: no/,
      /socket hang up/,
      /more than 8388608 bytes/,
      /no answer within/,
    ];
    for (const [n, text] of expected.entries()) {
      expect(found[n]).toMatch(/^METRICS_UNKNOWN: /);
      expect(found[n]).toMatch(text);
    }
    const away = new PrometheusClient({ url: 'http://127.0.0.1:1' });
    await expect(away.query('up', signal)).rejects.toThrow(/ECONNREFUSED/);
  });
});

describe('the config', () => {
  const resolve = (prometheus: Record<string, unknown>) =>
    resolveConfig({ metrics: { prometheus: { url: 'http://p:9090', ...prometheus } } } as never).prometheus;

  it('needs a URL alone', () => {
    expect(resolve({})).toEqual({ url: 'http://p:9090', everySeconds: 15 });
    expect(resolve({ labels: { pod: 'pod', namespace: 'namespace' } })?.labels).toEqual({
      pod: 'pod',
      namespace: 'namespace',
    });
    expect(resolve({ ...DEFAULT_QUERIES })).toMatchObject(DEFAULT_QUERIES);
  });

  it.each([
    [{ url: 'prometheus:9090' }, 'metrics.prometheus.url'],
    [{ url: 'http://me:secret@p' }, 'bearerTokenFile'],
    [{ p99Ms: 'up' }, '$members'],
    [{ labels: { pod: 'pod' } }, 'metrics.prometheus.labels'],
    [{ labels: { proxy: 'a-b' } }, 'metrics.prometheus.labels'],
    [{ everySeconds: 0 }, 'everySeconds'],
  ])('refuses %j', (wrong, text) => {
    expect(() => resolve(wrong)).toThrow(text);
  });

  it('a file of certificates that is not there is told at the start', () => {
    const options = { url: 'https://p', caFile: '/nowhere', labels: PROXY, everySeconds: 15 };
    expect(() => new PrometheusSource(options)).toThrow(/caFile: ENOENT/);
  });
});
