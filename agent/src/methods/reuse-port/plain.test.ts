import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, expect, it, vi } from 'vitest';
import type { Epoch } from '../../epochs/epoch.ts';
import { identify } from '../../epochs/proc.ts';
import { listenAddressesOf } from '../../witnesses/kernel.ts';
import { takeOverPlainly } from './plain.ts';

const children: ChildProcess[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** Listens on an admin address and on another one; that closes `delayMs` after a line comes. */
const OLD = `const net = require('net');
const listen = (then) => { const s = net.createServer(); s.listen(0, '127.0.0.1', () => then(s)); };
listen((admin) => listen((own) => {
  process.stdin.once('data', () => setTimeout(() => own.close(), Number(process.argv[1])));
  console.log('127.0.0.1:' + admin.address().port);
}));`;

async function old(delayMs = 0) {
  const child = spawn(process.execPath, ['-e', OLD, String(delayMs)]);
  children.push(child);
  const [line] = await once(child.stdout, 'data');
  return { child, pid: child.pid as number, adminAddress: String(line).trim() };
}

function parts(
  { pid, adminAddress }: { pid: number; adminAddress: string },
  post: () => Promise<unknown>,
  started = identify(pid),
) {
  const did: string[] = [];
  const asEpoch = (fields: object) => fields as unknown as Epoch;
  const before = asEpoch({
    number: 0,
    process: started,
    meta: { adminAddress },
    admin: {
      post: async (path: string) => {
        did.push(`POST ${path}`);
        await post();
      },
    },
  });
  const after = asEpoch({ update: (change: object) => did.push(JSON.stringify(change)) });
  const log = (level: string, message: string) => did.push(`${level}: ${message}`);
  return { did, run: () => takeOverPlainly({ log }, before, after) };
}

it('waits until the old one, told to stop, accepts nowhere but on its admin', async () => {
  const running = await old(150);
  const { did, run } = parts(running, async () => running.child.stdin.write('stop'));
  expect(listenAddressesOf(running.pid)).toHaveLength(2);
  await run();
  expect(listenAddressesOf(running.pid)).toEqual([running.adminAddress]);
  // On disk first: from then on both accept.
  expect(did).toEqual(['{"steered":true}', 'POST /drain_listeners']);
});

it('throws while the old one accepts: it was not told', async () => {
  const running = await old();
  const { run } = parts(running, () => Promise.reject(new Error('no answer')));
  await expect(run()).rejects.toThrow('no answer');
  expect(listenAddressesOf(running.pid)).toHaveLength(2);
});

it('goes on past the bound with one that does not stop, and says so', async () => {
  const running = await old();
  const { did, run } = parts(running, async () => {});
  let now = 0;
  vi.spyOn(Date, 'now').mockImplementation(() => {
    now += 4_000;
    return now;
  });
  await run();
  expect(did.at(-1)).toBe('error: the old epoch did not close its listeners');
});

it('asks nothing of an old one that is gone', async () => {
  const running = await old();
  const started = identify(running.pid);
  running.child.kill('SIGKILL');
  await once(running.child, 'close');
  const { did, run } = parts(running, () => Promise.reject(new Error('nobody')), started);
  await run();
  expect(did).toEqual(['{"steered":true}']);
});
