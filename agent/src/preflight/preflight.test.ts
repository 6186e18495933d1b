import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { SluiceError } from '@sluice/contract';
import { afterAll, describe, expect, it } from 'vitest';
import { hotRestartChecks } from './hot-restart.ts';
import { type PreflightInput, preflight } from './index.ts';
import { availableBytes } from './machine.ts';

const folder = mkdtempSync(join(tmpdir(), 'sluice-preflight-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Stands for an Envoy in `--mode validate`. */
function script(name: string, body: string): string {
  const file = join(folder, name);
  writeFileSync(file, `#!/bin/sh\n${body}\n`);
  chmodSync(file, 0o755);
  return file;
}

const takes = script('takes', 'exit 0');

function input(change: Partial<PreflightInput> = {}): PreflightInput {
  return {
    binary: takes,
    mergedBootstrap: {},
    concurrency: 2,
    runFolder: folder,
    udpAddresses: [],
    hotRestart: true,
    wish: 'auto',
    methods: [{ name: 'hot-restart', check: hotRestartChecks }],
    probe: async () => ({ hotRestartVersion: '11.104', wire: 'known', evidence: 'schema' }),
    availableMemory: 2 ** 40,
    ...change,
  };
}

const serving = {
  pid: process.pid,
  version: '1.38.3',
  binary: '/old',
  concurrency: 2,
  baseId: 6_099,
  adminAddress: '/admin.sock',
};

/** Codes of what failed, by check. */
async function failures(change: Partial<PreflightInput>): Promise<Record<string, string | undefined>> {
  const { ok, checks } = await preflight(input(change));
  const failed = checks.filter((c) => !c.ok);
  expect(ok).toBe(failed.length === 0);
  for (const check of failed) expect(check.hint).toBeTruthy();
  return Object.fromEntries(failed.map((c) => [c.name, c.code]));
}

describe('preflight', () => {
  it('lets a first epoch pass that nothing speaks against', async () => {
    expect(await failures({})).toEqual({});
  });

  it('names a binary that does not run, and goes on with the other checks', async () => {
    const probe = () => Promise.reject(new SluiceError('PREFLIGHT_BINARY', 'no such file'));
    const { checks } = await preflight(input({ probe, availableMemory: 1 }));
    expect(checks.filter((c) => !c.ok).map((c) => c.code)).toEqual([
      'SLUICE_PREFLIGHT_BINARY',
      'SLUICE_PREFLIGHT_MEMORY',
    ]);
  });

  it('refuses another hot restart version, and a wire protocol that is not known', async () => {
    const probe = async (binary: string) =>
      binary === '/old'
        ? { hotRestartVersion: '11.104', wire: 'known' as const, evidence: '' }
        : { hotRestartVersion: '12.1', wire: 'unknown' as const, evidence: 'hot restart version 12.1' };
    expect(await failures({ probe, serving })).toMatchObject({
      'wire protocol': 'SLUICE_PREFLIGHT_WIRE',
      'hot restart version': 'SLUICE_PREFLIGHT_HOT_RESTART_VERSION',
    });
  });

  it.each([
    ['by the agent', { hotRestart: false, serving }],
    ['at the start of the serving epoch', { serving: { ...serving, hotRestart: false } }],
  ])('refuses hot restart that was switched off %s', async (_, change) => {
    expect(await failures(change)).toMatchObject({ 'hot restart': 'SLUICE_PREFLIGHT_HOT_RESTART_OFF' });
  });

  it('lets another method do what hot restart can not; the reason is said, and fails nothing', async () => {
    const reusePort = { name: 'reuse-port', check: async () => [] } as const;
    const methods = [...input().methods, reusePort];
    const found = await preflight(input({ serving, hotRestart: false, methods }));
    expect(found).toMatchObject({ ok: true, method: 'reuse-port' });
    expect(found.checks.at(-1)?.found).toContain('not hot-restart (hot restart: switched off');
  });

  it("gives Envoy's own reason for a bootstrap that it refuses", async () => {
    const binary = script(
      'refuses',
      'echo "[2026][critical][main] error initializing configuration: no such field" >&2; exit 1',
    );
    const { checks } = await preflight(input({ binary }));
    const check = checks.find((c) => c.name === 'bootstrap');
    expect(check).toMatchObject({ ok: false, code: 'SLUICE_PREFLIGHT_BOOTSTRAP' });
    expect(check?.found).toContain('no such field');
  });

  it('refuses another concurrency and a shared memory that is not there', async () => {
    expect(await failures({ serving, concurrency: 4 })).toEqual({
      concurrency: 'SLUICE_PREFLIGHT_CONCURRENCY',
      'shared memory': 'SLUICE_PREFLIGHT_SHARED_MEMORY',
      method: 'SLUICE_PREFLIGHT_METHOD',
    });
  });

  it('wants room for what the serving epoch has and a fifth more', async () => {
    const rss = process.memoryUsage.rss();
    expect(await failures({ serving, availableMemory: rss })).toHaveProperty('memory');
    expect(await failures({ serving, availableMemory: 3 * rss })).not.toHaveProperty('memory');
  });

  it('refuses a run folder that is not there, or too deep for a Unix socket', async () => {
    expect(await failures({ runFolder: join(folder, 'none') })).toEqual({
      'run folder': 'SLUICE_PREFLIGHT_SOCKET_DIR',
    });
    const deep = join(folder, 'd'.repeat(100));
    mkdirSync(deep);
    expect(await failures({ runFolder: deep })).toEqual({ 'run folder': 'SLUICE_PREFLIGHT_SOCKET_DIR' });
  });

  it.each([
    ['by its address', { address: { socket_address: { protocol: 'UDP', port_value: 1 } } }],
    ['by its address, the enum as a number', { address: { socketAddress: { protocol: 1, portValue: 1 } } }],
    ['by its configuration', { udp_listener_config: {} }],
    ['by its configuration in camelCase', { udpListenerConfig: {} }],
  ])('refuses a UDP listener by name: known %s', async (_, listener) => {
    const mergedBootstrap = { static_resources: { listeners: [{ name: 'tcp' }, { name: 'raw', ...listener }] } };
    const { checks } = await preflight(input({ mergedBootstrap }));
    expect(checks.find((c) => c.name === 'udp')).toMatchObject({ ok: false, found: 'listener raw' });
  });

  it.each([{ udp_listener_config: { quic_options: {} } }, { udpListenerConfig: { quicOptions: {} } }])(
    'takes QUIC: $listener',
    async (listener) => {
      const mergedBootstrap = { static_resources: { listeners: [{ name: 'quic', ...listener }] } };
      const { checks } = await preflight(input({ mergedBootstrap }));
      expect(checks.find((c) => c.name === 'udp')).toMatchObject({ ok: true, found: '1 QUIC' });
    },
  );

  it('refuses UDP sockets of listeners that came by xDS', async () => {
    expect(await failures({ udpAddresses: ['0.0.0.0:443'] })).toEqual({ udp: 'SLUICE_PREFLIGHT_UDP' });
  });

  it('takes TCP that is named so', async () => {
    const listeners = [{ name: 'web', address: { socket_address: { protocol: 'TCP', port_value: 1 } } }];
    expect(await failures({ mergedBootstrap: { static_resources: { listeners } } })).toEqual({});
  });
});

describe('availableBytes', () => {
  let tree = 0;
  const machine = (files: Record<string, string>): number => {
    const root = join(folder, `root${tree++}`);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
    return availableBytes(root);
  };
  const MEMINFO = { 'proc/meminfo': 'MemTotal: 9000 kB\nMemAvailable: 8000 kB\n' };

  it('is what the machine has where there is no limit', () => {
    expect(machine(MEMINFO)).toBe(8_192_000);
    expect(machine({ ...MEMINFO, 'sys/fs/cgroup/memory.max': 'max\n', 'sys/fs/cgroup/memory.current': '5\n' })).toBe(
      8_192_000,
    );
  });

  it('is what the control group leaves, its idle file pages counted as free', () => {
    const group = 'sys/fs/cgroup/pod/';
    expect(
      machine({
        ...MEMINFO,
        'proc/self/cgroup': '0::/pod\n',
        [`${group}memory.max`]: '5000\n',
        [`${group}memory.current`]: '4500\n',
        [`${group}memory.stat`]: 'anon 1\ninactive_file 700\n',
      }),
    ).toBe(1_200);
  });

  it('reads version 1 as well', () => {
    const group = 'sys/fs/cgroup/memory/pod/';
    expect(
      machine({
        ...MEMINFO,
        'proc/self/cgroup': '4:cpu,cpuacct:/x\n3:memory:/pod\n',
        [`${group}memory.limit_in_bytes`]: '5000\n',
        [`${group}memory.usage_in_bytes`]: '4900\n',
        [`${group}memory.stat`]: 'total_inactive_file 50\n',
      }),
    ).toBe(150);
  });

  it('is never below nothing', () => {
    expect(machine({ ...MEMINFO, 'sys/fs/cgroup/memory.max': '5\n', 'sys/fs/cgroup/memory.current': '9\n' })).toBe(0);
  });
});
