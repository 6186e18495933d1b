import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { EndedConnection } from '@sluice/contract';
import { afterEach, expect } from 'vitest';
import { until } from '../harness/process.ts';
import { TcpEcho } from '../harness/tcp-echo.ts';
import { closeRigs, it, rig } from './haproxy-rig.ts';

/** What a proxy that is not Envoy has of policy: limits and the record, and no pace. */
afterEach(closeRigs);

it('over its memory budget the old generation is given up; each connection’s end is kept with its rule', async () => {
  const policy = { maxDrainMs: 0, atDeadline: 'reset', memory: { budgetMiB: 1 } };
  const { agent, ports, write, upgrade, epochs } = await rig({ policy });
  const held = await TcpEcho.open(ports.tcp);
  const left = await TcpEcho.open(ports.tcp);
  await upgrade(await write('B'));
  await agent.line('new epoch serves', (line) => line.epoch === 1);
  // Who leaves before the drain has looked at all is in no record.
  await until('the drain sees both', async () =>
    (await epochs()).some(({ epoch, verdict }) => epoch === 0 && (verdict?.total ?? 0) >= 2) ? true : undefined,
  );
  await left.close();
  await agent.line('over the memory budget: this epoch is given up', (line) => line.epoch === 0);
  expect(await agent.line('old epoch reset', (line) => line.epoch === 0)).toMatchObject({ cut: 1 });
  const lines = readFileSync(path.join(agent.dir, 'epochs/0/ended.ndjson'), 'utf8').trim().split('\n');
  const ended = new Map(
    lines.map((line) => JSON.parse(line) as EndedConnection).map((one) => [one.connection.peer, one]),
  );
  expect(ended.get(held.local)).toMatchObject({ how: 'cut', lever: 'cut', released: 'memory', rule: 'default' });
  expect(ended.get(left.local)).toMatchObject({ how: 'left', lever: 'wait' });
});

it('a policy that asks for a pace is refused before anything is touched', async () => {
  const { write, upgrade, epochs } = await rig({ policy: { pacing: { perSecond: 20 } } });
  const before = await epochs();
  await expect(upgrade(await write('B'))).rejects.toThrow(/pacing needs Envoy/);
  expect((await epochs()).map(({ pid }) => pid)).toEqual(before.map(({ pid }) => pid));
});
