import { readFileSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import path from 'node:path';
import type { EndedConnection, EndedView, UpgradeView } from '@sluice/contract';
import { afterEach, expect, test } from 'vitest';
import { newConnections } from '../harness/connects.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { until } from '../harness/process.ts';
import { sluice } from '../harness/sluice.ts';
import { type Client, http2Client, type PolicyRig, startPolicyRig, webSocket } from './policy-rig.ts';

let rig: PolicyRig | undefined;
let clients: Client[] = [];
afterEach(async () => {
  for (const client of clients) client.close();
  clients = [];
  await rig?.close();
  rig = undefined;
});

async function opened<T extends Client>(client: Promise<T>): Promise<T> {
  const one = await client;
  clients.push(one);
  return one;
}

/** `sluice explain` until it says all of this. */
async function explained(url: string, args: readonly string[], ...wanted: readonly RegExp[]): Promise<string> {
  let last = '';
  return until(
    `sluice explain ${args.join(' ')} says ${wanted.join(' and ')}`,
    async () => {
      last = (await sluice(url, 'explain', 'edge', ...args)).out;
      return wanted.every((one) => one.test(last)) ? last : undefined;
    },
    { limitMs: 20_000, everyMs: 200 },
  ).catch((error: Error) => {
    throw new Error(`${error.message}; it said last:\n${last}`);
  });
}

interface Recorded {
  readonly upgrade: UpgradeView;
  readonly phases: readonly { readonly phase: string }[];
  readonly estimate?: object;
  readonly accuracy?: { readonly connections: number; readonly medianErrorMs: number };
  readonly ended: EndedView;
}

async function recorded(url: string, id: string): Promise<Recorded> {
  const { exit, out, err } = await sluice(url, 'record', id, '--format', 'json');
  expect(err).toBe('');
  expect(exit).toBe(0);
  return JSON.parse(out) as Recorded;
}

function endOf(record: Recorded, client: Client): EndedConnection | undefined {
  return record.ended.items.find(({ connection }) => connection.peer === client.peer);
}

function escaped(peer: string): string {
  return peer.replaceAll('.', '\\.');
}

test('1.40.0: each rule holds its own connections; explain names the rule, the record how each one ended', async () => {
  rig = await startPolicyRig(await envoyBinary('1.40.0'));
  const { mesh, port, quietPort } = rig;
  const { controller, block } = mesh;
  const { url } = controller;
  const load = newConnections(port, 100);
  const told = await opened(http2Client(port, '127.0.0.1'));
  const quiet = await opened(http2Client(quietPort, '127.0.0.1'));
  const kept = await opened(webSocket(port, '127.0.0.2'));
  const chat = await opened(webSocket(port, '127.0.0.3', '/chat'));
  const short = await opened(webSocket(port, '127.0.0.3'));

  const policy = path.join(block.dir, 'policy.yaml');
  writeFileSync(
    policy,
    `http1: {silentIdleGraceMs: 500}
maxDrainMs: 0
rules:
  - name: quiet listener
    match: {listeners: [qui*]}
    nudge: false
  - name: kept sockets
    match: {protocols: [upgrade], peers: [127.0.0.2]}
  - name: chat rooms
    match: {routes: [ch*t]}
  - name: short sockets
    match: {protocols: [upgrade]}
    protectMs: 2000
    cutOrder: 1
`,
  );
  const to = await envoyBinary('1.39.3');
  const plan = await sluice(url, 'plan', 'edge', '--to', to, '--policy', policy);
  expect(plan.exit).toBe(0);
  expect(plan.out).toContain('can be done by hot-restart');
  expect(plan.out).toMatch(/3 WebSockets or other upgrades and 0 TCP sessions live on .* policy waits for 3 of them/);
  expect(plan.out).toMatch(
    /rule quiet listener holds 1, rule kept sockets holds 1, rule chat rooms holds 1, rule short sockets holds 1/,
  );

  const begun = await sluice(url, 'upgrade', 'edge', '--to', to, '--policy', policy, '-o', 'name');
  expect(begun).toMatchObject({ exit: 0, err: '' });
  const id = begun.out.trim();
  await controller.phase(id, ['Draining']);

  // Marked connections leave with their next response.
  await until('the busy one is told to leave', async () => {
    if (told.toldAt() === undefined) await told.ask();
    return told.toldAt();
  });
  const text = await explained(
    url,
    [],
    new RegExp(`${escaped(quiet.peer)} .* quiet listener +yes +not-told`),
    new RegExp(`${escaped(kept.peer)} +upgrade .* kept sockets +yes +upgrade`),
    new RegExp(`${escaped(chat.peer)} +upgrade .* chat rooms +yes +upgrade`),
    new RegExp(`${escaped(short.peer)} +upgrade .* short sockets +no: protection over +upgrade`),
    /is not waited for, by rule short sockets: its rule protected it for a time that is over/,
  );
  expect(text).toContain('Limit by time: none.');
  expect(text).toMatch(/A reset now would cut \d, first to last:/);
  const one = (await sluice(url, 'explain', 'edge', '--connection', short.peer)).out;
  expect(one).toContain('rule short sockets: told to leave, waited for no longer than 2s from the start of the drain');
  expect(one).toContain('waited for: no: protection over (upgrade)');
  // Policy does not wait for it, and nobody ends it before the reset.
  expect(await short.echo('still here')).toBe('still here');
  expect(await quiet.ask()).toBe(200);
  expect(quiet.toldAt()).toBeUndefined();

  quiet.close();
  kept.close();
  chat.close();
  const done = await controller.phase(id, ['Done']);
  await short.ended;
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  expect(done.connections?.cut).toMatchObject([
    { peer: short.peer, rule: 'short sockets', released: 'protection-over' },
  ]);
  const record = await recorded(url, id);
  expect(endOf(record, told)).toMatchObject({ how: 'left', lever: 'mark', rule: 'default' });
  expect(endOf(record, quiet)).toMatchObject({ how: 'left', lever: 'wait', rule: 'quiet listener' });
  expect(endOf(record, kept)).toMatchObject({ how: 'left', lever: 'wait', rule: 'kept sockets' });
  expect(endOf(record, chat)).toMatchObject({ how: 'left', rule: 'chat rooms', connection: { route: 'chat' } });
  expect(endOf(record, short)).toMatchObject({ how: 'cut', released: 'protection-over', rule: 'short sockets' });
  for (const client of [quiet, kept, chat, short]) {
    const { at, estimate: { at: said = 0, endsAt = 0, lateMs = 0 } = {} } = endOf(record, client) as EndedConnection;
    expect([said > 0, lateMs]).toEqual([true, at - endsAt]);
  }
  // The one that was cut would have lasted longer.
  expect(record.accuracy?.connections).toBeGreaterThanOrEqual(3);
  expect(record.accuracy?.medianErrorMs).toBeGreaterThanOrEqual(0);
  expect(record.phases.map(({ phase }) => phase)).toEqual(
    expect.arrayContaining(['Idle', 'Preflight', 'Starting', 'Draining', 'SafeToReset', 'Resetting', 'Done']),
  );
  const csv = path.join(block.dir, 'record.csv');
  expect((await sluice(url, 'record', id, '--out', csv)).exit).toBe(0);
  const whole = (await sluice(url, 'record', id)).out;
  expect(whole).toMatch(
    new RegExp(`${escaped(short.peer)} +upgrade +rule short sockets: cut at .* by its protection was over`),
  );
  expect(whole).toMatch(/estimates of \d+ connections that ended as they would: median error /);
});

// 1.38.3 has no V8: the kernel lists its connections, so that only peers and listeners' addresses are known of them.
test.each([
  ['1.40.0', '1.38.3'],
  ['1.38.3', '1.40.0'],
])('%s: over its memory budget the lingering epoch is given up, the record says by memory', async (from, to) => {
  rig = await startPolicyRig(await envoyBinary(from));
  const { mesh, port } = rig;
  const { controller } = mesh;
  const load = newConnections(port, 100);
  const dear = await opened(webSocket(port, '127.0.0.2'));
  const cheap = await opened(webSocket(port, '127.0.0.3'));
  const upgrade = await controller.startUpgrade('edge', await envoyBinary(to), {
    http1: { silentIdleGraceMs: 500 },
    maxDrainMs: 0,
    atDeadline: 'reset',
    memory: { budgetMiB: 1 },
    rules: [
      { name: 'dear', match: { peers: ['127.0.0.2'] }, cutOrder: 200 },
      { name: 'cheap', match: { peers: ['127.0.0.3'] }, cutOrder: 1 },
    ],
  });
  const done = await controller.phase(upgrade.id, ['Done']);
  await Promise.all([dear.ended, cheap.ended]);
  expect(await load.stop()).toMatchObject({ refused: 0, lost: 0 });
  // No clock runs, and no operator spoke.
  expect(done.override).toBeUndefined();
  expect(done.deadlineAt).toBeUndefined();
  expect(done.connections?.cut.map(({ peer, rule, released }) => [peer, rule, released])).toEqual([
    [cheap.peer, 'cheap', 'memory'],
    [dear.peer, 'dear', 'memory'],
  ]);
  const record = await recorded(controller.url, upgrade.id);
  for (const client of [cheap, dear]) {
    expect(endOf(record, client)).toMatchObject({ how: 'cut', lever: 'cut', released: 'memory' });
  }
  expect((await sluice(controller.url, 'record', upgrade.id)).out).toContain('by memory');
  // What the agent alone knows is the same.
  const local = await sluice(controller.url, 'agent', 'record', '--dir', path.join(mesh.block.dir, 'run'));
  expect(local.out).toContain(`upgrade ${upgrade.id} of edge: ${from} -> ${to}`);
  // One of the load's connections may have been open when the old epoch stopped accepting.
  const [, old, drained] = /old connections: (\d+), (\d+) drained, 2 cut/.exec(local.out) ?? [];
  expect(Number(old) - Number(drained)).toBe(2);
});

test('1.36.4: at the deadline a rule may wait on; what an override cuts is recorded with whose word it was', async () => {
  rig = await startPolicyRig(await envoyBinary('1.36.4'));
  const { mesh, port } = rig;
  const { controller, block } = mesh;
  const { url } = controller;
  const kept = await opened(webSocket(port, '127.0.0.2'));
  const given = await opened(webSocket(port, '127.0.0.3'));
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.37.0'), {
    maxDrainMs: 1_000,
    atDeadline: 'reset',
    rules: [{ name: 'wait on', match: { peers: ['127.0.0.2'] }, atDeadline: 'wait' }],
  });
  await explained(
    url,
    [],
    new RegExp(`${escaped(kept.peer)} +upgrade .* wait on +yes +upgrade`),
    new RegExp(`${escaped(given.peer)} +upgrade .* default +no: deadline +upgrade`),
  );
  expect(await given.echo('still here')).toBe('still here');
  const protectedOnes = await sluice(url, 'reset', 'edge');
  expect(protectedOnes.exit).toBe(5);
  expect(protectedOnes.err).toContain(kept.peer);
  const reset = await sluice(url, 'reset', 'edge', '--override', '--reason', 'the node goes down', '--by', 'jo');
  expect(reset.exit).toBe(0);
  await controller.phase(upgrade.id, ['Done']);
  await Promise.all([kept.ended, given.ended]);
  const record = await recorded(url, upgrade.id);
  expect(endOf(record, given)).toMatchObject({ how: 'cut', released: 'deadline', rule: 'default' });
  expect(endOf(record, kept)).toMatchObject({ how: 'cut', rule: 'wait on' });
  expect(endOf(record, kept)?.released).toBeUndefined();
  const out = path.join(block.dir, 'record.csv');
  expect((await sluice(url, 'record', upgrade.id, '--out', out)).exit).toBe(0);
  const rows = readFileSync(out, 'utf8').split('\r\n');
  expect(rows.find((row) => row.includes(kept.peer))).toMatch(/,cut,cut,wait on,upgrade,,jo,/);
  expect(rows.find((row) => row.includes(given.peer))).toMatch(/,cut,cut,default,upgrade,deadline,,/);
});

test("1.40.0: an override at the agent's own socket is in the controller's record and the agent's, with who gave it", async () => {
  rig = await startPolicyRig(await envoyBinary('1.40.0'));
  const { mesh, port } = rig;
  const { controller, block } = mesh;
  const { url } = controller;
  const dir = path.join(block.dir, 'run');
  const kept = await opened(webSocket(port, '127.0.0.2'));
  const upgrade = await controller.startUpgrade('edge', await envoyBinary('1.39.3'));
  await explained(url, [], new RegExp(`${escaped(kept.peer)} +upgrade .* default +yes +upgrade`));
  await until('the drain is estimated', async () => (await controller.upgrade(upgrade.id)).firstEstimate, {
    limitMs: 20_000,
  });
  const override = ['--override', '--reason', 'the node goes down'];
  const reset = await sluice(url, 'agent', 'reset', '--dir', dir, '--epoch', '0', ...override);
  expect(reset).toMatchObject({ exit: 0, err: '' });
  const done = await controller.phase(upgrade.id, ['Done']);
  await kept.ended;
  const by = userInfo().username;
  expect(done.override).toMatchObject({ by, reason: 'the node goes down' });
  expect(done.record?.find(({ event }) => event === 'override')?.text).toContain("at the agent's own socket");
  for (const from of [
    ['record', upgrade.id],
    ['agent', 'record', '--dir', dir],
  ]) {
    expect((await sluice(url, ...from)).out).toMatch(
      new RegExp(`${escaped(kept.peer)} +upgrade .*: cut at .* by the override of ${by} `),
    );
    const rows = (await sluice(url, ...from, '--format', 'csv')).out.split('\r\n');
    expect(rows.find((row) => row.includes(kept.peer))?.includes(`,cut,cut,default,upgrade,,${by},`)).toBe(true);
    const json = JSON.parse((await sluice(url, ...from, '--format', 'json')).out) as Recorded;
    expect(json.upgrade.override).toMatchObject({ by, reason: 'the node goes down', at: expect.any(Number) });
    const first = { at: expect.any(Number), endsAt: expect.any(Number) };
    expect(json.estimate).toMatchObject({ first, endedAt: expect.any(Number), lateMs: expect.any(Number) });
    expect(endOf(json, kept)?.estimate).toMatchObject({ ...first, lateMs: expect.any(Number) });
  }
});

test('1.38.3: a rule that this Envoy can not keep is refused in preflight; one by peers holds its connections', async () => {
  rig = await startPolicyRig(await envoyBinary('1.38.3'));
  const { mesh, port } = rig;
  const { controller, block } = mesh;
  const { url } = controller;
  const kept = await opened(webSocket(port, '127.0.0.2'));
  const other = await opened(http2Client(port, '127.0.0.1'));
  const to = await envoyBinary('1.40.0');
  const alone = path.join(block.dir, 'alone.json');
  const match = { peers: ['127.0.0.2/32'] };
  writeFileSync(alone, JSON.stringify({ rules: [{ name: 'alone', match, nudge: false }] }));
  const refused = await sluice(url, 'plan', 'edge', '--to', to, '--policy', alone);
  expect(refused.exit).toBe(6);
  expect(refused.out).toMatch(/policy +FAILED +rule alone wants some left alone/);
  const failed = await controller.startUpgrade('edge', to, { rules: [{ name: 'alone', match, nudge: false }] });
  expect((await controller.phase(failed.id, ['Failed'])).failure?.code).toBe('SLUICE_PREFLIGHT_POLICY');
  expect(await kept.echo('untouched')).toBe('untouched');
  expect((await controller.proxy('edge')).epochs).toMatchObject([{ epoch: 0, state: 'serving' }]);

  const upgrade = await controller.startUpgrade('edge', to, {
    http1: { silentIdleGraceMs: 300 },
    rules: [{ name: 'by peer', match }],
  });
  await controller.phase(upgrade.id, ['Draining']);
  await explained(url, [], new RegExp(`${escaped(kept.peer)} .* by peer +yes +may-hold-a-request`));
  // An idle HTTP/2 connection is told all the same.
  await other.ended;
  expect(await kept.echo('still here')).toBe('still here');
  kept.close();
  const done = await controller.phase(upgrade.id, ['Done']);
  expect(done.connections?.cut).toEqual([]);
  const record = await recorded(url, upgrade.id);
  expect(endOf(record, kept)).toMatchObject({ how: 'left', rule: 'by peer' });
  expect(endOf(record, other)).toMatchObject({ how: 'left', rule: 'default' });
});

test('a bad policy is refused by the path of its field before anything is touched', async () => {
  rig = await startPolicyRig(await envoyBinary('1.40.0'));
  const { mesh } = rig;
  const { controller, block } = mesh;
  const bad = { rules: [{ name: 'all' }, { name: 'peers', match: { peers: ['10.0.0.0/8', '10.0.0.0/99'] } }] };
  const match = { rules: [{ name: 'all', match: {} }, bad.rules[1]] };
  await expect(controller.startUpgrade('edge', '1.39.3', match)).rejects.toThrow(
    /400 SLUICE_CONFIG_INVALID policy\.rules\[1\]\.match\.peers\[1\]: expected an IP address or a CIDR block/,
  );
  const file = path.join(block.dir, 'bad.yaml');
  writeFileSync(file, JSON.stringify(bad));
  for (const command of ['upgrade', 'plan']) {
    const { exit, err } = await sluice(controller.url, command, 'edge', '--to', '1.39.3', '--policy', file);
    expect(exit).toBe(2);
    expect(err).toContain('SLUICE_CONFIG_INVALID: policy.rules[0].match: expected an object');
  }
  expect(await controller.call('GET', '/upgrades')).toEqual({ items: [] });
  expect((await controller.proxy('edge')).epochs).toMatchObject([{ epoch: 0, state: 'serving' }]);
});
