import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

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

/** A command in the installed folder; nothing of this checkout may help it. */
function inFolder(command: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }> {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|VITEST|NODE_OPTIONS|NODE_PATH|SLUICE_)/.test(name)),
  );
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
