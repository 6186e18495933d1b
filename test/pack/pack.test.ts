import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { claimBlock } from '../harness/ports.ts';
import { type Child, start } from '../harness/process.ts';
import { Asking } from './asking.ts';

const run = promisify(execFile);
const ROOT = new URL('../..', import.meta.url).pathname;
/** In the order of their dependencies: each is built against the ones before it. */
const PACKAGES = ['contract', 'wasm-filter', 'xds-server', 'agent', 'cli'] as const;
const COMMAND_MS = 240_000;

interface Packed {
  readonly name: string;
  readonly filename: string;
  readonly files: readonly { readonly path: string }[];
}

let folder: string;
const packed: Packed[] = [];

/** Nothing of this checkout may help what runs in the installed folder. */
const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|VITEST|NODE_OPTIONS|NODE_PATH|SLUICE_)/.test(name)),
);

function inFolder(command: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  return run(command, args, { cwd: folder, env, timeout: COMMAND_MS });
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-pack-'));
  for (const name of PACKAGES) {
    const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', folder], {
      cwd: join(ROOT, name),
      timeout: COMMAND_MS,
      maxBuffer: 16 * 1024 * 1024,
    });
    // What the scripts print comes before the JSON.
    const [entry] = JSON.parse(stdout.slice(stdout.search(/^\[\s*$/m))) as Packed[];
    packed.push(entry as Packed);
  }
  await inFolder('npm', ['init', '-y']);
  const tarballs = packed.map((p) => `./${p.filename}`);
  await inFolder('npm', ['install', '--no-audit', '--no-fund', '--no-save', ...tarballs]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('a package holds JavaScript and its types, no sources and no tests', () => {
  for (const { name, files } of packed) {
    const paths = files.map((f) => f.path);
    expect(paths, name).toContain('dist/index.js');
    expect(paths, name).toContain('dist/index.d.ts');
    const odd = paths.filter((p) => /\.test\.|(?<!\.d)\.ts$|^src\//.test(p));
    expect(odd, name).toEqual([]);
  }
  expect(packed.find((p) => p.name === '@sluice/wasm-filter')?.files.map((f) => f.path)).toContain('build/sluice.wasm');
});

test('every package imports under plain node', async () => {
  for (const { name } of packed) {
    const { stdout } = await inFolder('node', ['-e', `import('${name}').then((m) => console.log(typeof m))`]);
    expect(stdout, name).toBe('object\n');
  }
});

test('the keeper and the controller are where the command looks for them', async () => {
  const script = `const [a, b] = await Promise.all([import('@sluice/agent/keeper'), import('@sluice/xds-server')]);
    console.log(typeof a.startKeeper, typeof b.startController);`;
  const { stdout } = await inFolder('node', ['--input-type=module', '-e', script]);
  expect(stdout).toBe('function function\n');
});

test('npx sluice runs', async () => {
  expect((await inFolder('npx', ['sluice', 'version'])).stdout).toMatch(/^sluice \d+\.\d+\.\d+ /);
  expect((await inFolder('npx', ['sluice', 'controller', '--help'])).stdout).toContain('--resources <folder>');
  expect((await inFolder('npx', ['sluice', 'agent', '--help'])).stdout).toContain('--bootstrap <file>');
});

test('an agent loads neither gRPC nor protobuf', async () => {
  const script = `import { registerHooks } from 'node:module';
    const heavy = [];
    registerHooks({ resolve(specifier, context, next) {
      const found = next(specifier, context);
      if (/grpc-js|protobufjs|fastify|pino|zod|prom-client/.test(found.url)) heavy.push(found.url);
      return found;
    } });
    await import('@sluice/agent/keeper');
    console.log(heavy.length);`;
  const { stdout } = await inFolder('node', ['--input-type=module', '-e', script]);
  expect(stdout).toBe('0\n');
});

test('the helper for Node servers as it is published: two servers change hands, every request is answered', async () => {
  copyFileSync(join(import.meta.dirname, 'user/server.mjs'), join(folder, 'server.mjs'));
  const block = await claimBlock();
  const [http1, http2] = [await block.port(), await block.port()];
  const args = ['--import', '@sluice/agent/listen-fd/behind', 'server.mjs', join(folder, 'listen.sock')];
  const generation = (ready: RegExp): Promise<Child> =>
    start('node', [...args, `127.0.0.1:${http1}`, `127.0.0.1:${http2}`], { name: 'server', cwd: folder, env, ready });
  const asking = new Asking(http1, http2);
  const running: Child[] = [];
  try {
    running.push(await generation(/^serving$/));
    const [first] = running as [Child];
    await asking.untilEachHeard(first.pid);
    running.push(await generation(/^serving, taken over$/));
    const [, second] = running as [Child, Child];
    // The kept connections are told to leave, so nobody has to be sent away for this.
    expect(await first.ended).toEqual({ code: 0, signal: null });
    expect(first.tail).toContain('drained true, left 0');
    await asking.untilEachHeard(second.pid);
    await asking.stop();
    expect(asking.failures).toEqual([]);
    expect([...new Set(asking.heard.map(({ pid }) => pid))]).toEqual([first.pid, second.pid]);
    // The other way to end: nobody comes after this one.
    second.kill('SIGTERM');
    expect(await second.ended).toEqual({ code: 0, signal: null });
  } finally {
    await asking.stop();
    for (const child of running) await child.stop();
    await block.release();
  }
});

test('the helper’s types, as a program of its user is compiled against them', async () => {
  copyFileSync(join(import.meta.dirname, 'user/types.ts'), join(folder, 'types.ts'));
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2024', '--types', 'node'];
  await inFolder(join(ROOT, 'node_modules/.bin/tsc'), [...options, 'types.ts']);
  const { exports } = JSON.parse(readFileSync(join(folder, 'node_modules/@sluice/agent/package.json'), 'utf8'));
  expect(exports['./*']).toMatchObject({ types: './dist/*.d.ts' });
});
