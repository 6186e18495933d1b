import { execFileSync } from 'node:child_process';
import { rm } from 'node:fs/promises';
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { BASE_IDS_PER_BLOCK, claimBlock } from './ports.ts';

it('gives two runs different ports, base ids and folders', async () => {
  const [a, b] = [await claimBlock(), await claimBlock()];
  expect(await a.port()).not.toBe(await b.port());
  expect(a.baseId()).not.toBe(b.baseId());
  expect(a.dir).not.toBe(b.dir);
  await a.release();
  await b.release();
});

it('frees the block of a run that died', async () => {
  const ports = fileURLToPath(new URL('./ports.ts', import.meta.url));
  const script = `import(${JSON.stringify(ports)}).then(async ({ claimBlock }) => {
    console.log((await claimBlock()).dir);
    process.kill(process.pid, 'SIGKILL');
  })`;
  const run = () => {
    try {
      return execFileSync(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] }).toString();
    } catch (error) {
      return String((error as { stdout?: Buffer }).stdout);
    }
  };
  const [dir = '', index] = /^\S*sluice-(\d+)-\S*/.exec(run()) ?? [];
  await rm(dir, { recursive: true });
  const socket = net.connect(`\0sluice-test-block-${index}`);
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve));
  expect(error.code).toBe('ECONNREFUSED');
});

it('refuses more base ids than the block has', async () => {
  const block = await claimBlock();
  const ids = Array.from({ length: BASE_IDS_PER_BLOCK }, () => block.baseId());
  expect(new Set(ids).size).toBe(BASE_IDS_PER_BLOCK);
  expect(() => block.baseId()).toThrow('no base id is left');
  await block.release();
});
