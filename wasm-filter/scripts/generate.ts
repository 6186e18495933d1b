/**
 * Compiles assembly/ to build/sluice.wasm. Does nothing when the sources, the flags and the compiler are those of the
 * last build: `npm run generate` runs before everything else.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { main, version } from 'assemblyscript/asc';

const root = join(import.meta.dirname, '..');
const target = join(root, 'build', 'sluice.wasm');
const stamp = `${target}.sha256`;

const FLAGS = [
  '-O3',
  '--converge',
  '--noAssert',
  '--runtime',
  'incremental',
  '--exportStart',
  '_initialize',
  '--use',
  'abort=assembly/abi/abort',
];

async function digest(): Promise<string> {
  const hash = createHash('sha256').update(`${version} ${FLAGS.join(' ')}`);
  const names = (await readdir(join(root, 'assembly'))).filter((name) => name.endsWith('.ts')).sort();
  for (const name of names)
    hash
      .update(name)
      .update('\0')
      .update(await readFile(join(root, 'assembly', name)));
  return hash.digest('hex');
}

const read = (path: string): Promise<Buffer | undefined> => readFile(path).catch(() => undefined);

const wanted = await digest();
if (String(await read(stamp)) !== wanted || (await read(target)) === undefined) {
  const temporary = join('build', `sluice.${process.pid}.wasm`);
  await mkdir(join(root, 'build'), { recursive: true });
  const { error, stderr } = await main(['assembly/index.ts', '--baseDir', root, '--outFile', temporary, ...FLAGS]);
  if (error) throw new Error(`the filter does not compile: ${error.message}\n${stderr}`);
  // By rename: another process may be reading the old one.
  await rename(join(root, temporary), target);
  await writeFile(stamp, wanted);
}
