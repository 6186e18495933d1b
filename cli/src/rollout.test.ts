import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Writable } from 'node:stream';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  encodeLine,
  MEMBER_STATES,
  type MemberState,
  type RolloutEntry,
  type RolloutView,
} from '@sluice/contract';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Io } from './lib/io.ts';
import { runProgram } from './program.ts';
import { rolloutLines } from './view/rollout.ts';

const NOW = 1_000_000;
const entry: RolloutEntry = {
  rolloutId: 'r1',
  seq: 0,
  at: NOW,
  phase: 'Progressing',
  event: 'started',
  text: 'edge-0',
};

function view(more: Partial<RolloutView> = {}, states: readonly MemberState[] = ['upgraded', 'starting']): RolloutView {
  const none = Object.fromEntries(MEMBER_STATES.map((name) => [name, 0])) as Record<MemberState, number>;
  const summary = { ...none, total: states.length };
  for (const state of states) summary[state]++;
  return {
    id: 'r1',
    phase: 'Progressing',
    reason: 'stage 2 of 2',
    spec: {
      selector: { proxies: ['edge-*'], labels: {} },
      target: { to: '1.40.0' },
      policy: DEFAULT_POLICY,
      strategy: DEFAULT_STRATEGY,
      analysis: DEFAULT_ANALYSIS,
    },
    createdAt: NOW,
    phaseSince: NOW,
    stage: { index: 1, count: 2, goal: 2 },
    summary,
    counts: { failedUpgrades: 0, crashes: 0, cutConnections: 0 },
    members: states.map((state, n) => ({
      name: `edge-${n}`,
      zone: 'a',
      state,
      since: NOW,
      reason: 'because',
      failures: 0,
      crashes: 0,
      cut: 0,
    })),
    record: [entry],
    ...more,
  };
}

let server: Server;
let asked: { path: string; body: unknown }[];
let end: RolloutView;
beforeEach(async () => {
  asked = [];
  end = view({ phase: 'Done', reason: '2 of 2 have the target' }, ['upgraded', 'upgraded']);
  server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => {
      text += chunk;
    });
    request.on('end', () => {
      const path = `${request.method} ${request.url?.replace('/api/v1', '')}`;
      asked.push({ path, body: text === '' ? undefined : JSON.parse(text) });
      if (path === 'GET /watch') {
        response.write(encodeLine({ kind: 'rolloutRecord', entry }));
        response.end(encodeLine({ kind: 'rollout', rollout: end }));
      } else if (path === 'GET /rollouts') response.end(JSON.stringify({ items: [view()] }));
      else if (path === 'GET /rollouts/r1') response.end(JSON.stringify(end));
      else response.end(JSON.stringify(view()));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const text = { out: '', err: '' };
  const sink = (key: 'out' | 'err') =>
    new Writable({
      write(chunk, _encoding, done) {
        text[key] += chunk;
        done();
      },
    });
  const io: Io = {
    out: sink('out'),
    err: sink('err'),
    env: {},
    interrupted: () => new AbortController().signal,
    programName: 'sluice',
  };
  const { port } = server.address() as AddressInfo;
  const code = await runProgram(['rollout', ...args, '--controller', `http://127.0.0.1:${port}`], io);
  return { code, ...text };
}

test('create sends what the flags say and follows to the end', async () => {
  const flags = [
    '--batches',
    '25%,2',
    '--pause',
    '30s',
    '--on-failure',
    'rollback',
    '--spread',
    'zone',
    '--canary',
    '0',
  ];
  const { code, out } = await run('create', 'edge-*', '--to', '1.40.0', ...flags, '--wait');
  expect(code).toBe(0);
  expect(asked[0]).toMatchObject({
    path: 'POST /rollouts',
    body: {
      to: '1.40.0',
      selector: { proxies: ['edge-*'] },
      strategy: { batches: ['25%', 2], pauseBetweenMs: 30_000, spread: 'zone', canary: 0 },
      analysis: { onFailure: 'rollback', maxCrashes: 0 },
    },
  });
  expect(out).toMatch(/started: edge-0\n/);
  expect(out).toMatch(/rollout r1: Done: 2 of 2 have the target\n$/);
});

test('one that ended otherwise has the exit code of a failed rollout; a rollback that was asked for has not', async () => {
  end = view({ phase: 'RolledBack', reason: 'analysis: 1 failed upgrades' });
  expect((await run('get', 'r1', '-w')).code).toBe(7);
  expect((await run('rollback', 'r1', '--wait')).code).toBe(0);
});

test('a verb without an id is for the one under way; a misspelt value is told before anything is sent', async () => {
  expect((await run('pause')).out).toContain('rollout r1: Progressing');
  expect(asked.map((one) => one.path)).toEqual(['GET /rollouts', 'POST /rollouts/r1/pause']);
  asked = [];
  const bad = await run('create', 'edge-*', '--to', '1.40.0', '--partition', '120%');
  expect(bad.code).toBe(2);
  expect(bad.err).toContain('strategy.partition');
  expect((await run('create', '--to', '1.40.0')).err).toContain('selector: expected proxies or labels');
  expect(asked).toEqual([]);
});

test('the list and the tree show how far it is', async () => {
  expect((await run('get')).out).toMatch(/r1 +Progressing +1\.40\.0 +2\/2 +1\/2/);
  const lines = rolloutLines(view({ pause: { by: 'stage', reason: 'x', at: NOW, until: NOW + 9_000 } }), NOW);
  expect(lines[0]).toBe('r1  Progressing  to 1.40.0  stage 2/2  [#>] 1/2');
  expect(lines[1]).toContain('goes on in 9s');
  expect(lines[2]).toContain('# edge-0 (a)  upgraded');
});
