import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { program, writeImages } from './images.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), 'sluice-images-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const unpack = (archive: string, to: string) => {
  execFileSync('mkdir', ['-p', to]);
  execFileSync('tar', ['-xpf', archive, '-C', to]);
};
const read = (...names: string[]) => readFileSync(path.join(dir, ...names), 'utf8');

test('two images share a layer, and its files come out as they went in', async () => {
  const from = path.join(dir, 'source');
  writeFileSync(from, 'x'.repeat(70_000), { mode: 0o700 });
  const long = `/${'deep/'.repeat(30)}name`;
  const common = [
    { path: '/bin/a', from },
    { path: '/etc/b', text: 'text', mode: 0o600 },
    { path: '/bin/c', link: 'a' },
    { path: '/empty', mode: 0o1777 },
    { path: long, text: 'far away' },
  ];
  const own = [{ path: '/version', text: '2' }];
  const archive = path.join(dir, 'images.tar');
  await writeImages(
    [
      { name: 'x/y:1', layers: [common], entrypoint: ['/bin/a'], user: '1:2' },
      { name: 'x/y:2', layers: [common, own] },
    ],
    archive,
  );
  unpack(archive, path.join(dir, 'out'));
  const manifest = JSON.parse(read('out', 'manifest.json'));
  expect(manifest.map((image: { Layers: string[] }) => image.Layers)).toEqual([
    ['layer-0.tar'],
    ['layer-0.tar', 'layer-1.tar'],
  ]);
  const config = JSON.parse(read('out', manifest[0].Config));
  const digest = createHash('sha256')
    .update(readFileSync(path.join(dir, 'out', 'layer-0.tar')))
    .digest('hex');
  expect(config.rootfs.diff_ids).toEqual([`sha256:${digest}`]);
  expect(config.config).toMatchObject({ Entrypoint: ['/bin/a'], User: '1:2' });

  unpack(path.join(dir, 'out', 'layer-0.tar'), path.join(dir, 'root'));
  expect(read('root', 'bin/c')).toBe('x'.repeat(70_000));
  expect(read('root', 'etc/b')).toBe('text');
  expect(read('root', long)).toBe('far away');
  const mode = (name: string) => statSync(path.join(dir, 'root', name)).mode & 0o7777;
  expect([mode('bin/a'), mode('etc/b'), mode('empty')].map((bits) => bits.toString(8))).toEqual(['700', '600', '1777']);
});

test('a program comes with the libraries that it is linked with', () => {
  const files = program(process.execPath, '/usr/local/bin/node');
  expect(files[0]).toMatchObject({ path: '/usr/local/bin/node' });
  expect(files.some(({ path: file }) => /\/libc\.so\.6$/.test(file))).toBe(true);
});
