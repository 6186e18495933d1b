import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { migratesRequests } from '../native/migrate-req.ts';
import { reusePortChecks, steeringOf } from './reuse-port.ts';

const serving = {
  pid: process.pid,
  version: '1.39.3',
  binary: '/old',
  concurrency: 2,
  baseId: 6_098,
  adminAddress: '127.0.0.1:9901',
};

const subject = {
  binary: '/new',
  mergedBootstrap: { admin: { address: { pipe: { path: '/run/epochs/1/admin.sock' } } } },
  concurrency: 2,
  runFolder: '/run/epochs',
  udpAddresses: [],
  hotRestart: false,
  wish: 'auto' as const,
  methods: [],
  probe: () => Promise.reject(new Error('not asked')),
  serving,
};

async function failures(
  change: Record<string, unknown> = {},
  bootstrap: Record<string, unknown> = {},
  input: { readonly quic?: boolean } = {},
) {
  const checks = await reusePortChecks({
    ...subject,
    mergedBootstrap: { ...subject.mergedBootstrap, ...bootstrap },
    serving: { ...serving, ...change },
    ...input,
  });
  return Object.fromEntries(checks.filter((c) => !c.ok).map((c) => [c.code, c.found]));
}

it('finds nothing against a process of the same user that shares what it listens on', async () => {
  expect(await failures()).toEqual({});
});

it('refuses an admin address that both would have', async () => {
  const admin = { address: { socket_address: { address: '127.0.0.1', port_value: 9901 } } };
  expect(await failures({}, { admin })).toEqual({ SLUICE_PREFLIGHT_ADMIN: '127.0.0.1:9901 for both' });
  // Ours is another one for each epoch, though the check is made with that of the first.
  expect(await failures({ adminAddress: '/run/epochs/1/admin.sock' })).toEqual({});
});

it('names the listeners that want their address for themselves, in either spelling', async () => {
  const listeners = [{ name: 'a' }, { name: 'b', enable_reuse_port: false }, { name: 'c', enableReusePort: false }];
  expect(await failures({}, { static_resources: { listeners } })).toEqual({
    SLUICE_PREFLIGHT_LISTENER: 'listener b (enable_reuse_port: false), listener c (enable_reuse_port: false)',
  });
});

it.each([
  ['QUIC', { udp_listener_config: { quic_options: {} } }],
  ['QUIC in camelCase', { udpListenerConfig: { quicOptions: {} } }],
  ['other UDP', { address: { socket_address: { protocol: 'UDP', port_value: 1 } } }],
])('names the new listeners over %s, and QUIC of the serving epoch', async (_, udp) => {
  const listeners = [{ name: 'web' }, { name: 'h3', ...udp }];
  const static_resources = { listeners };
  expect(await failures({}, { static_resources })).toEqual({ SLUICE_PREFLIGHT_UDP: 'listener h3' });
  expect(await failures({}, { static_resources }, { quic: true })).toEqual({
    SLUICE_PREFLIGHT_UDP: 'listener h3, QUIC in the serving epoch',
  });
  // One that leaves it out would cut its connections.
  expect(await failures({}, {}, { quic: true })).toEqual({ SLUICE_PREFLIGHT_UDP: 'QUIC in the serving epoch' });
  expect(await failures({}, {}, { quic: false })).toEqual({});
});

it.runIf(process.getuid?.() === 0)('refuses an Envoy of another user', async () => {
  const other = spawn('sleep', ['60'], { uid: 65_534 });
  await once(other, 'spawn');
  expect(await failures({ pid: other.pid })).toMatchObject({
    SLUICE_PREFLIGHT_OWNER: 'serving Envoy of user 65534, agent of user 0',
  });
  other.kill('SIGKILL');
});

describe('steering, and what stands in for it', () => {
  const no = 'setsockopt: ENOMEM';
  const steers = async () => undefined;
  const doesNot = async () => no;
  /** net.ipv4.tcp_migrate_req as the file has it; undefined: there is none. */
  const kernel = (text: string | undefined, whyNotSteer: () => Promise<string | undefined>) => ({
    whyNotSteer,
    migratesRequests: () =>
      migratesRequests((path) => {
        expect(path).toBe('/proc/sys/net/ipv4/tcp_migrate_req');
        if (text === undefined) throw new Error('ENOENT');
        return text;
      }),
  });
  const off = expect.stringMatching(/^0: what waits in the queue of a closed socket is reset/);
  const can = { ok: true, found: 'new connections can be steered to the new epoch' };

  it.each([
    ['0\n', steers, can, off],
    ['1\n', steers, can, '1: what waits in the queue of a closed socket moves to another one'],
    [
      '1\n',
      doesNot,
      { ok: true, found: `not possible (${no}), nor needed: the kernel migrates what waits` },
      '1: what waits in the queue of a closed socket moves to another one',
    ],
    ['0\n', doesNot, { ok: false, code: 'SLUICE_PREFLIGHT_STEERING', found: no }, off],
    [undefined, doesNot, { ok: false, code: 'SLUICE_PREFLIGHT_STEERING', found: no }, off],
  ])('%# tcp_migrate_req %j', async (text, whyNotSteer, steering, line) => {
    const checks = await reusePortChecks(subject, kernel(text, whyNotSteer));
    const named = (name: string) => checks.find((check) => check.name === name);
    expect(named('steering')).toMatchObject(steering);
    // Said, whatever it is; it refuses nothing by itself.
    expect(named('net.ipv4.tcp_migrate_req')).toEqual({ name: 'net.ipv4.tcp_migrate_req', ok: true, found: line });
    expect(checks.filter(({ ok }) => !ok).map(({ name }) => name)).toEqual(steering.ok ? [] : ['steering']);
  });

  it('the kernel can, but a process whose sockets can not be had can not be steered around', async () => {
    const gone = spawn('true');
    await once(gone, 'close');
    const { why, migrates } = await steeringOf(gone.pid as number, kernel('1', steers));
    expect(migrates).toBe(true);
    expect(why).toBeTruthy();
  });
});
