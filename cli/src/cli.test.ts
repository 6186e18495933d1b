import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { createControlServer } from '@sluice/agent/status/control';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { close, folder, open, requests, routes, run, server } from './testing/api-double.ts';
import { connection, held, NOW, proxy, record, upgrade } from './testing/views.ts';

beforeEach(open);
afterEach(close);

test('get prints a table, a tree, JSON, YAML and names', async () => {
  routes['GET /api/v1/proxies'] = { body: { items: [proxy] } };
  routes['GET /api/v1/proxies/edge'] = { body: proxy };
  routes['GET /api/v1/upgrades'] = { body: { items: [upgrade()] } };
  expect((await run('get')).out).toMatch(/^PROXY .*\nedge +connected +1\.40\.0 +2 +Draining +1/);
  const tree = await run('get', 'edge');
  expect(tree.out).toContain('epoch 1  1.38.3  draining');
  expect(tree.out).toContain('10.0.0.1:5?[2J  upgrade');
  expect(JSON.parse((await run('get', '-o', 'json')).out).items[0].proxy).toBe('edge');
  expect((await run('get', '-o', 'yaml')).out).toContain('- proxy: edge');
  expect((await run('get', '-o', 'name')).out).toBe('edge\n');
});

test('an error of the API is one line with its code, and its exit code', async () => {
  const { exit, err } = await run('get', 'other');
  expect(exit).toBe(4);
  expect(err).toBe('error: SLUICE_PROXY_UNKNOWN: no GET /api/v1/proxies/other (look)\n');
});

test('a controller that is away exits 8', async () => {
  expect((await run('get', '--controller', 'http://127.0.0.1:1')).exit).toBe(8);
  expect((await run('get', '--controller', 'ftp://x')).exit).toBe(2);
  routes['GET /api/v1/proxies'] = { status: 502, body: '<html>' };
  expect((await run('get')).exit).toBe(8);
});

test('upgrade sends target and policy, and --wait follows the record to its end', async () => {
  writeFileSync(join(folder, 'policy.yaml'), 'maxDrainMs: 1000\n');
  const done = upgrade({ phase: 'Done', reason: 'all drained', record: [record(1, 'Draining'), record(2, 'Done')] });
  routes['POST /api/v1/upgrades'] = { status: 201, body: upgrade({ phase: 'Idle' }) };
  routes['GET /api/v1/upgrades/u1'] = { body: upgrade({ record: [record(1, 'Draining')] }) };
  routes['GET /api/v1/watch'] = { watch: [{ kind: 'synced' }] };
  // The first watch breaks off; by the second the upgrade has ended.
  server.on('request', (request) => {
    if (request.url !== '/api/v1/watch') return;
    routes['GET /api/v1/watch'] = { watch: [{ kind: 'synced' }, { kind: 'record', record: record(2, 'Done') }] };
    if (requests.filter((r) => r.at.endsWith('/watch')).length > 0) routes['GET /api/v1/upgrades/u1'] = { body: done };
  });
  const args = ['upgrade', 'edge', '--to', '1.40.0', '--policy', join(folder, 'policy.yaml'), '--wait'];
  const { exit, out } = await run(...args);
  expect(exit).toBe(0);
  expect(out.match(/now Draining/g)).toHaveLength(1);
  expect(out.match(/now Done/g)).toHaveLength(1);
  expect(requests[0]?.body).toEqual({ proxy: 'edge', to: '1.40.0', policy: { maxDrainMs: 1000 } });
});

test('a failed upgrade exits by what failed', async () => {
  const failed = upgrade({ phase: 'Failed', failure: { code: 'SLUICE_PREFLIGHT_BOOTSTRAP', message: 'bad' } });
  routes['POST /api/v1/upgrades'] = { status: 201, body: upgrade() };
  routes['GET /api/v1/upgrades/u1'] = { body: failed };
  routes['GET /api/v1/watch'] = { watch: [{ kind: 'synced' }] };
  expect((await run('upgrade', 'edge', '--to', 'x', '--wait')).exit).toBe(6);
});

test('an upgrade that does not end in time exits 9 and says where it is', async () => {
  routes['POST /api/v1/upgrades'] = { status: 201, body: upgrade() };
  routes['GET /api/v1/upgrades/u1'] = { body: upgrade() };
  routes['GET /api/v1/watch'] = { watch: [{ kind: 'synced' }] };
  const { exit, err } = await run('upgrade', 'edge', '--to', 'x', '--wait', '--timeout', '300ms');
  expect(exit).toBe(9);
  expect(err).toContain('Draining: one WebSocket is left');
});

test('a misspelt policy field is refused before anything is sent', async () => {
  writeFileSync(join(folder, 'policy.yaml'), 'maxDrain: 1000\n');
  const { exit, err } = await run('upgrade', 'edge', '--to', 'x', '--policy', join(folder, 'policy.yaml'));
  expect(exit).toBe(2);
  expect(err).toContain('policy.maxDrain: no such field');
  expect(requests).toEqual([]);
});

test('explain says why, and what a reset would cut', async () => {
  const item = {
    upgradeId: 'u1',
    phase: 'Draining',
    safe: false,
    why: ['one WebSocket is left'],
    held: [held],
    wouldCut: [held],
    total: 1,
    protected: 1,
    witnesses: [],
    hint: 'wait',
  };
  routes['GET /api/v1/proxies/edge/explain'] = { body: { proxy: 'edge', summary: 'not yet safe', items: [item] } };
  const { out } = await run('explain', 'edge');
  expect(out).toContain('A reset now would cut 1, first to last:');
  expect(out).not.toContain('\u001b');
});

test('explain of one connection: held, open, ended, or unknown', async () => {
  const item = {
    upgradeId: 'u1',
    phase: 'Draining',
    oldEpoch: 1,
    safe: false,
    why: [],
    held: [{ ...held, rule: 'sockets' }],
    wouldCut: [],
    total: 2,
    protected: 1,
    witnesses: [],
    hint: 'wait',
  };
  routes['GET /api/v1/proxies/edge/explain'] = { body: { proxy: 'edge', summary: '', items: [item] } };
  const other = { ...connection, epoch: 2, id: '9', peer: '10.0.0.9:1' };
  routes['GET /api/v1/proxies/edge/connections?limit=10000'] = {
    body: { proxy: 'edge', items: [other], truncated: false },
  };
  const gone = { ...connection, id: '8', peer: '10.0.0.8:1' };
  const ended = { connection: gone, at: NOW, how: 'left', lever: 'wait', reason: 'upgrade', rule: 'sockets' };
  routes['GET /api/v1/upgrades/u1/connections'] = { body: { upgradeId: 'u1', items: [ended], counts: [], dropped: 0 } };
  expect((await run('explain', 'edge', '--connection', '1/7')).out).toContain('rule sockets');
  expect((await run('explain', 'edge', '--connection', '10.0.0.9:1')).out).toContain('nothing tells it to leave');
  expect((await run('explain', 'edge', '--connection', '10.0.0.8:1')).out).toContain('rule sockets: left at');
  const { exit, err } = await run('explain', 'edge', '--connection', '10.0.0.7:1');
  expect(exit).toBe(4);
  expect(err).toContain('CONNECTION_UNKNOWN');
});

test('record prints, and writes a file in the format that its name tells', async () => {
  routes['GET /api/v1/upgrades'] = { body: { items: [upgrade({ phase: 'Done' })] } };
  routes['GET /api/v1/upgrades/u1'] = { body: upgrade({ phase: 'Done', record: [record(1, 'Done')] }) };
  const ended = {
    connection,
    at: NOW,
    how: 'cut',
    lever: 'cut',
    reason: 'upgrade',
    rule: 'sockets',
    released: 'memory',
  };
  routes['GET /api/v1/upgrades/u1/connections'] = { body: { upgradeId: 'u1', items: [ended], counts: [], dropped: 0 } };
  expect((await run('record', 'edge')).out).toContain('rule sockets: cut at');
  const out = join(folder, 'record.csv');
  expect((await run('record', 'u1', '--out', out)).err).toContain('1 ended connections written');
  expect(readFileSync(out, 'utf8')).toContain(',cut,cut,sockets,upgrade,memory,');
  expect((await run('record', 'edge', '--format', 'ndjson')).out.split('\n')[0]).toContain('"kind":"upgrade"');
  expect((await run('record', 'edge', '--format', 'xml')).exit).toBe(2);
  expect((await run('record', 'u1', '--out', join(folder, 'none', 'x.csv'))).exit).toBe(2);
});

test('agent record reads the run folder of an agent that need not run', async () => {
  const epoch = join(folder, 'epochs', '0');
  mkdirSync(epoch, { recursive: true });
  const line = { connection, at: NOW, how: 'left', lever: 'age-pressure', reason: 'told-to-leave', rule: 'default' };
  writeFileSync(join(epoch, 'ended.ndjson'), `${JSON.stringify(line)}\n{"torn":`);
  writeFileSync(
    join(epoch, 'meta.json'),
    JSON.stringify({ epoch: 0, version: '1.38.3', endedBy: 'local-1', drainingSince: NOW }),
  );
  const { exit, out } = await run('agent', 'record', '--dir', folder);
  expect(exit).toBe(0);
  expect(out).toContain('upgrade local-1');
  expect(out).toMatch(/left +age-pressure +upgrade +default +1/);
  expect((await run('agent', 'record', '--dir', folder, '--epoch', '3')).exit).toBe(4);
});

test('check exits by the first check that failed', async () => {
  const checks = [
    { name: 'binary', ok: true, found: '1.40.0' },
    { name: 'memory', ok: false, found: '3 MB', code: 'SLUICE_PREFLIGHT_MEMORY', hint: 'free some' },
  ];
  routes['POST /api/v1/proxies/edge/check'] = { body: { proxy: 'edge', ok: false, checks } };
  const { exit, out } = await run('check', 'edge', '--to', '1.40.0');
  expect(exit).toBe(6);
  expect(out).toContain('memory   FAILED   3 MB     free some');
});

test('plan shows the checks, the method and the notes, and sends the policy', async () => {
  const checks = [
    { name: 'binary', ok: true, found: '1.40.0' },
    { name: 'method', ok: true, found: 'reuse-port: as asked for' },
  ];
  const notes = [
    { about: 'circuit-breakers', level: 'warn', text: 'cluster up: 100 in each epoch' },
    { about: 'memory', level: 'info', text: '60 MiB\u001b[2J' },
  ];
  routes['POST /api/v1/proxies/edge/check'] = { body: { proxy: 'edge', ok: true, checks, notes } };
  writeFileSync(join(folder, 'policy.yaml'), 'maxDrainMs: 1000\n');
  const asked = ['plan', 'edge', '--to', '1.40.0', '--method', 'reuse-port', '--policy', join(folder, 'policy.yaml')];
  const { exit, out } = await run(...asked);
  expect(exit).toBe(0);
  expect(requests[0]?.body).toEqual({ to: '1.40.0', method: 'reuse-port', policy: { maxDrainMs: 1000 } });
  expect(out).toContain('the upgrade of edge to 1.40.0 can be done by reuse-port: as asked for');
  expect(out).toContain('! circuit-breakers: cluster up: 100 in each epoch');
  expect(out).toContain('  memory: 60 MiB?[2J');
  expect(JSON.parse((await run(...asked, '-o', 'json')).out).notes).toHaveLength(2);
  expect((await run('plan', 'edge', '--to', 'x', '--method', 'magic')).exit).toBe(2);
});

test('a plan that can not be done says so and exits as the check does', async () => {
  const checks = [{ name: 'method', ok: false, found: 'no method can', code: 'SLUICE_PREFLIGHT_METHOD', hint: 'mend' }];
  routes['POST /api/v1/proxies/edge/check'] = { body: { proxy: 'edge', ok: false, checks } };
  const { exit, out } = await run('plan', 'edge', '--to', 'x');
  expect(exit).toBe(6);
  expect(out).toContain('can not be done: 1 of 1 checks failed');
});

test('reset, abort and rollback find the upgrade by its proxy; an override needs a reason', async () => {
  routes['GET /api/v1/upgrades'] = {
    body: { items: [upgrade({ id: 'u0', phase: 'Done', createdAt: NOW + 1 }), upgrade()] },
  };
  for (const verb of ['reset', 'abort', 'rollback']) routes[`POST /api/v1/upgrades/u1/${verb}`] = { body: upgrade() };
  expect((await run('reset', 'edge', '--override')).exit).toBe(2);
  expect((await run('reset', 'edge', '--override', '--reason', 'must', '--by', 'me')).exit).toBe(0);
  expect(requests.at(-1)?.body).toEqual({ override: { by: 'me', reason: 'must' } });
  expect((await run('abort', 'edge')).exit).toBe(0);
  expect((await run('rollback', 'u1')).exit).toBe(0);
  expect((await run('abort', 'other')).exit).toBe(4);
});

test('connections names them', async () => {
  const body = { proxy: 'edge', items: [connection], truncated: true };
  routes['GET /api/v1/proxies/edge/connections?limit=1000&epoch=1'] = { body };
  const { out, err } = await run('connections', 'edge', '--epoch', '1', '-o', 'name');
  expect(out).toBe('1/7\n');
  expect(err).toContain('only the first 1');
});

test('wrong usage exits 2', async () => {
  expect((await run('nothing')).exit).toBe(2);
  expect((await run('upgrade', 'edge')).exit).toBe(2);
  expect((await run('get', '-o', 'xml')).exit).toBe(2);
  expect((await run('agent', 'wait', '--dir', folder, '--timeout', 'soon')).exit).toBe(2);
  expect((await run('--help')).exit).toBe(0);
});

test('agent wait gives an agent that is not there its time, then exits 9', async () => {
  expect((await run('agent', 'wait', '--dir', folder, '--timeout', '100ms')).exit).toBe(9);
  expect((await run('agent', 'status', '--dir', folder)).exit).toBe(8);
});

test('agent wait begins before its agent and ends when the newest epoch serves', async () => {
  const waiting = run('agent', 'wait', '--dir', folder, '--timeout', '20s');
  const serving = Promise.withResolvers<unknown>();
  const asked = Promise.withResolvers<void>();
  const refuse = async (): Promise<never> => {
    throw new Error('not asked for');
  };
  const agent = await createControlServer({
    path: join(folder, 'agent.sock'),
    log: () => undefined,
    handlers: {
      report: refuse,
      status: () => ({ epochs: proxy.epochs }),
      connections: refuse,
      waitServing: () => {
        asked.resolve();
        return serving.promise;
      },
      upgrade: async () => ({
        ok: false,
        checks: [{ name: 'memory', ok: false, found: '', code: 'PREFLIGHT_MEMORY' }],
      }),
      abort: refuse,
      reset: async (body) => body,
    },
  });
  try {
    await asked.promise;
    serving.resolve({ epoch: 1 });
    expect((await waiting).exit).toBe(0);
    expect((await run('agent', 'status', '--dir', folder, '-o', 'name')).out).toBe('1\n2\n');
    expect((await run('agent', 'upgrade', '--dir', folder, '--to', 'x')).exit).toBe(6);
    expect((await run('agent', 'reset', '--dir', folder, '--epoch', '1')).out).toBe('{"epoch":1}\n');
    const override = ['agent', 'reset', '--dir', folder, '--epoch', '1', '--override'];
    expect((await run(...override)).exit).toBe(2);
    expect((await run(...override, '--reason', 'must', '--by', 'me')).out).toBe(
      '{"epoch":1,"by":"me","reason":"must"}\n',
    );
    expect((await run(...override, '--reason', 'must')).out).toContain(`"by":"${userInfo().username}"`);
    expect((await run('agent', 'abort', '--dir', folder, '--upgrade', 'u')).exit).toBe(70);
  } finally {
    await agent.close();
  }
});

test('a config file is checked by name and by value', async () => {
  const file = join(folder, 'agent.yaml');
  for (const [text, message] of [
    ['proxi: x', 'proxi: no such option'],
    ['baseId: many', 'baseId: expected a whole number'],
    ['proxy: [a, b]', 'proxy: expected --proxy <name>'],
    ['proxy: x\n  y: 1', 'agent.yaml'],
    ['- a', 'expected an object'],
    ['proxy: x\nslot: 2\ndir: d\nbaseId: 3', 'expected --envoy'],
  ]) {
    writeFileSync(file, text ?? '');
    const { exit, err } = await run('agent', '--config', file);
    expect(exit).toBe(2);
    expect(err).toContain(message);
  }
});
