import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SluiceError } from '@sluice/contract';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LoadCache, loadResources, parseResources } from './load.ts';
import type { ResourceSet } from './types.ts';
import { watchResources } from './watch.ts';

const cluster = (name: string, more = ''): string =>
  `"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: ${name}\n${more}`;

function refusal(text: string): string {
  try {
    parseResources('f.yaml', text);
  } catch (error) {
    expect((error as SluiceError).code).toBe('RESOURCE_INVALID');
    return (error as SluiceError).message;
  }
  throw new Error('expected a refusal');
}

describe('one file', () => {
  const names = (text: string): string[] => parseResources('f.yaml', text).map((r) => `${r.kind} ${r.name}`);

  it('holds one resource, several documents, a list, or resources as Envoy writes them', () => {
    expect(names(cluster('a'))).toEqual(['cds a']);
    expect(names(`${cluster('a')}\n---\n${cluster('b')}\n---\n`)).toEqual(['cds a', 'cds b']);
    const json = { '@type': 'type.googleapis.com/envoy.config.cluster.v3.Cluster', name: 'j' };
    expect(names(JSON.stringify([json]))).toEqual(['cds j']);
    expect(names(JSON.stringify({ version_info: '1', resources: [json] }))).toEqual(['cds j']);
    expect(names('')).toEqual([]);
    expect(names('# nothing\n')).toEqual([]);
  });

  it('takes anchors and merge keys', () => {
    const text = `resources:\n- &base\n  ${cluster('a', 'connect_timeout: 1s').replaceAll('\n', '\n  ')}\n- <<: *base\n  name: b\n`;
    expect(parseResources('f.yaml', text).map((r) => r.json)).toEqual([
      { name: 'a', connect_timeout: '1s' },
      { name: 'b', connect_timeout: '1s' },
    ]);
  });

  it.each([
    ['bad YAML', 'a: [1', 'f.yaml:1: '],
    [
      'an unknown type',
      '\n"@type": type.googleapis.com/x.Y\n',
      'f.yaml:2: @type: expected one of type.googleapis.com/envoy',
    ],
    ['no name', `${cluster('a').replace('name: a', '')}`, 'f.yaml:1: expected name, found "none"'],
    ['another form', 'clusters: []', 'f.yaml:1: clusters: expected "resources" alone'],
    ['a scalar', '42', 'f.yaml:1: expected resources, found number 42'],
    ['a wrong field in the second document', `${cluster('a')}---\n${cluster('b', 'nope: 1')}`, 'f.yaml:6: nope: '],
    [
      'a value of the wrong kind',
      cluster('a', 'load_assignment:\n  endpoints:\n  - priority: x\n'),
      'f.yaml:5: load_assignment.endpoints[0].priority: expected an integer',
    ],
  ])('refuses %s by its line', (_what, text, message) => {
    expect(refusal(text)).toContain(message);
  });

  it('names the first few problems of a file', () => {
    const many = Array.from({ length: 9 }, (_, i) => `x${i}: 1`).join('\n');
    const lines = refusal(cluster('a', many)).split('\n');
    expect(lines).toHaveLength(6);
    expect(lines[5]).toBe('and 4 more');
  });
});

describe('a folder', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'sluice-resources-'));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));
  const put = (file: string, text: string): void => {
    mkdirSync(join(dir, file, '..'), { recursive: true });
    writeFileSync(join(dir, `../${dir.split('/').at(-1)}.next`), text);
    renameSync(join(dir, `../${dir.split('/').at(-1)}.next`), join(dir, file));
  };

  it('gives the files at its top to all, and those of a subfolder to the proxy of its name', async () => {
    put('a.yaml', cluster('a'));
    put('README.md', 'not a resource');
    put('.hidden.yaml', 'not: read');
    put('web-1/b.yml', cluster('b'));
    const set = await loadResources(dir);
    expect([...set.shared.get('cds')!.keys()]).toEqual(['a']);
    expect([...set.byProxy.get('web-1')!.get('cds')!.keys()]).toEqual(['b']);
    expect(set.count).toBe(2);
  });

  it('refuses the same name twice and says where both are', async () => {
    put('a.yaml', cluster('x'));
    put('b.yaml', `\n${cluster('x')}`);
    await expect(loadResources(dir)).rejects.toThrow(
      `${join(dir, 'b.yaml')}:2: expected one CDS resource "x", found another at ${join(dir, 'a.yaml')}:1`,
    );
  });

  it('says when there is no such folder', async () => {
    await expect(loadResources(join(dir, 'none'))).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('keeps the objects of a file that did not change', async () => {
    const cache: LoadCache = new Map();
    put('a.yaml', cluster('a'));
    const first = await loadResources(dir, cache);
    put('b.yaml', cluster('b'));
    const second = await loadResources(dir, cache);
    expect(second.shared.get('cds')!.get('a')).toBe(first.shared.get('cds')!.get('a'));
  });

  describe('that is watched', () => {
    let abort: AbortController;
    let sets: ResourceSet[];
    let errors: SluiceError[];
    let wake: () => void;
    beforeEach(() => {
      abort = new AbortController();
      sets = [];
      errors = [];
      wake = () => {};
    });
    afterEach(() => abort.abort());
    const start = (): Promise<void> =>
      watchResources(dir, {
        signal: abort.signal,
        debounceMs: 5,
        onSet: (set) => {
          sets.push(set);
          wake();
        },
        onError: (error) => {
          errors.push(error);
          wake();
        },
      });
    async function until(found: () => boolean): Promise<void> {
      while (!found()) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
    const last = (): string[] => [...(sets.at(-1)?.shared.get('cds')?.keys() ?? [])];

    it('gives each good set, keeps the last one when a file is bad, and goes on when it is put right', async () => {
      put('a.yaml', cluster('a'));
      await start();
      expect(last()).toEqual(['a']);
      put('a.yaml', cluster('a', 'oops: 1'));
      await until(() => errors.length > 0);
      expect(errors[0]?.message).toContain('a.yaml:3: oops: ');
      expect(last()).toEqual(['a']);
      put('a.yaml', cluster('b'));
      await until(() => last().includes('b'));
    });

    it('sees a new folder and the files in it', async () => {
      put('a.yaml', cluster('a'));
      await start();
      put('web-1/b.yaml', cluster('b'));
      await until(() => sets.at(-1)!.byProxy.get('web-1')?.get('cds')?.has('b') === true);
      put('web-1/b.yaml', cluster('c'));
      await until(() => sets.at(-1)!.byProxy.get('web-1')?.get('cds')?.has('c') === true);
    });

    it('comes back when the folder was away', async () => {
      put('a.yaml', cluster('a'));
      await start();
      rmSync(dir, { recursive: true });
      await until(() => errors.some((error) => error.code === 'CONFIG_INVALID'));
      put('a.yaml', cluster('again'));
      await until(() => last().includes('again'));
    });

    it('throws when the first set is bad', async () => {
      put('a.yaml', 'a: [');
      await expect(start()).rejects.toMatchObject({ code: 'RESOURCE_INVALID' });
    });
  });
});
