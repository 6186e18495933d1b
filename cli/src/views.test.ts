import { readFileSync } from 'node:fs';
import type { WatchItem } from '@sluice/contract';
import { expect, test, vi } from 'vitest';
import { keeperFields } from './commands/agent/run.ts';
import { controllerFields } from './commands/controller.ts';
import { exitCodeRows } from './lib/failure.ts';
import { formatSpan, parseDuration } from './lib/time.ts';
import { buildProgram } from './program.ts';
import { held, NOW, proxy, upgrade, verdict } from './testing/views.ts';
import { apply, EMPTY } from './view/model.ts';
import { treeLines } from './view/tree.ts';

test('options become the fields of keeper and controller', async () => {
  const given = {
    proxy: 'p',
    dir: 'd',
    envoy: 'e',
    bootstrap: 'b',
    controller: ['http://a:1,http://b:2'],
    logLevel: 'info',
  } as const;
  expect(await keeperFields(given)).toEqual({
    proxy: 'p',
    slot: '1',
    dir: 'd',
    envoy: 'e',
    bootstrap: 'b',
    controllers: ['http://a:1', 'http://b:2'],
  });
  expect(await controllerFields({ listen: ':1', tokens: { p: 't' }, logLevel: 'warn' })).toEqual({
    apiAddress: ':1',
    tokens: { p: 't' },
    logLevel: 'warn',
  });
});

test('one of the --kube options without --kube or --kubeconfig is a mistake', async () => {
  const of = (options: object) => controllerFields({ logLevel: 'info', ...options });
  expect(await of({ kube: true })).toEqual({ logLevel: 'info', kubernetes: {} });
  expect(await of({ kubeconfig: 'k', kubeWatch: 'shop', kubeLease: 'l', kubeNamespace: 'n' })).toEqual({
    logLevel: 'info',
    kubernetes: { kubeconfig: 'k', watch: 'shop', lease: 'l', namespace: 'n' },
  });
  await expect(of({ kubeWatch: 'shop' })).rejects.toThrow('expected --kube or --kubeconfig with it');
});

test('the agent of a Pod is named after it, and tells its uid', async () => {
  const given = { dir: 'd', envoy: 'e', bootstrap: 'b', logLevel: 'info' } as const;
  vi.stubEnv('POD_NAME', 'web-0').stubEnv('POD_NAMESPACE', 'shop').stubEnv('POD_UID', 'u');
  expect(await keeperFields(given)).toMatchObject({ proxy: 'web-0.shop', labels: { 'sluice.dev/pod-uid': 'u' } });
  expect(await keeperFields({ ...given, proxy: 'edge', label: ['zone=a'] })).toMatchObject({
    proxy: 'edge',
    labels: { 'sluice.dev/pod-uid': 'u', zone: 'a' },
  });
  vi.unstubAllEnvs();
});

test('the tree redraws from what the watch told, newest upgrade first', () => {
  let model = EMPTY;
  const paced = {
    ...verdict,
    held: [{ ...held, rule: 'sockets' }],
    pacing: { told: 3, left: 2, perSecond: 1 },
    estimate: { at: NOW, endsAt: NOW + 7_000, observed: 4 },
  };
  for (const item of [
    { kind: 'proxy', proxy },
    { kind: 'upgrade', upgrade: upgrade({ oldEpoch: 1, verdict: paced }) },
    { kind: 'upgrade', upgrade: upgrade({ id: 'u2', createdAt: NOW + 5 }) },
    { kind: 'synced' },
  ] as WatchItem[]) {
    model = apply(model, item).model;
  }
  const lines = treeLines(model, NOW + 5_000);
  expect(lines.join('\n')).toContain('Told to leave: 3, 2 to go at 1 a second.');
  expect(lines.join('\n')).toContain('The drain ends in about 2s (by 4 ends of connections that were seen).');
  expect(lines.join('\n')).toContain('upgrade  upgrade  rule sockets');
  expect(lines[0]).toBe('edge  serves 1.40.0');
  expect(lines.findIndex((l) => l.includes('u2'))).toBeLessThan(lines.findIndex((l) => l.includes('u1')));
  expect(treeLines(EMPTY, 0)).toEqual(['connecting']);
});

test('durations are read and written', () => {
  expect(parseDuration('1h30m')).toBe(5_400_000);
  for (const bad of ['', '5', '5 s', 's', '99999999h']) expect(() => parseDuration(bad)).toThrow();
  expect([0, 999, 61_000, 3_600_000, 90_000_000].map(formatSpan)).toEqual(['0ms', '999ms', '1m1s', '1h', '1d1h']);
});

// A table that is behind: node --conditions=sluice-source cli/scripts/docs.ts
test('docs/cli.md names every command and every exit code with its errors', () => {
  const text = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
  for (const { exit, codes } of exitCodeRows()) {
    expect(text).toContain(`| ${exit} | ${codes.map((c) => `\`${c}\``).join(', ')} |`);
  }
  const program = buildProgram(() => undefined);
  for (const command of program.commands) expect(text).toContain(`sluice ${command.name()}`);
});
