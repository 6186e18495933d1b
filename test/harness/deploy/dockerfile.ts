import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { ImageSpec, Layer } from '../k8s/images.ts';

const run = promisify(execFile);
export const ROOT = path.resolve(import.meta.dirname, '../../..');
const BUILD_MS = 500_000;

export interface Instruction {
  readonly name: string;
  readonly text: string;
}

export interface Stage {
  readonly from: string;
  readonly as: string | undefined;
  readonly instructions: readonly Instruction[];
}

export interface Dockerfile {
  /** ARG with a default before the first FROM. */
  readonly args: Readonly<Record<string, string>>;
  readonly stages: readonly Stage[];
}

/** What the Dockerfiles of this project are made of: comments, lines that go on, ARG, FROM, JSON or plain instructions. */
export function parseDockerfile(text: string): Dockerfile {
  const lines = text
    .split('\n')
    .filter((line) => !/^\s*#/.test(line))
    .join('\n')
    .replaceAll(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const args: Record<string, string> = {};
  const stages: { from: string; as: string | undefined; instructions: Instruction[] }[] = [];
  for (const line of lines) {
    const [, name = '', rest = ''] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
    const stage = stages.at(-1);
    if (name === 'FROM') {
      const [, from = '', as] = /^(\S+)(?:\s+AS\s+(\S+))?$/.exec(rest) ?? [];
      stages.push({ from: filled(from, args), as, instructions: [] });
    } else if (stage !== undefined) stage.instructions.push({ name, text: rest });
    else if (name === 'ARG') {
      const [key = '', value = ''] = rest.split(/=(.*)/s);
      args[key] = filled(value, args);
    }
  }
  return { args, stages };
}

const filled = (text: string, args: Readonly<Record<string, string>>): string =>
  text.replaceAll(/\$\{(\w+)\}/g, (_, name: string) => args[name] ?? '');

/**
 * The image that the last stage of a Dockerfile makes, without Docker. What it copies out of other stages is given by the test.
 * @param copied by `STAGE:PATH`, such as `build:/out/`; gets the path in the image
 */
export function finalImage(
  { args, stages }: Dockerfile,
  name: string,
  base: Layer,
  copied: Readonly<Record<string, (to: string) => Layer>>,
): ImageSpec {
  const layers: Layer[] = [base];
  const env: string[] = [];
  const of: { user?: string; entrypoint?: string[]; cmd?: string[] } = {};
  for (const { name: instruction, text } of stages.at(-1)?.instructions ?? []) {
    const value = filled(text, args);
    if (instruction === 'COPY') {
      const [, stage, from = '', to = ''] = /^--from=(\S+) (\S+) (\S+)$/.exec(value) ?? [];
      const make = copied[`${stage}:${from}`];
      if (make === undefined) throw new Error(`expected a COPY that the test knows, found COPY ${value}`);
      layers.push(make(to));
    } else if (instruction === 'ENV') env.push(...value.split(/\s+/));
    else if (instruction === 'USER') of.user = value;
    else if (instruction === 'ENTRYPOINT') of.entrypoint = JSON.parse(value) as string[];
    else if (instruction === 'CMD') of.cmd = JSON.parse(value) as string[];
    else if (!['ARG', 'EXPOSE'].includes(instruction)) throw new Error(`expected no ${instruction} in the last stage`);
  }
  return { name, layers, env, ...of };
}

/** Whether `.dockerignore` keeps a file out: patterns of the forms `name`, `folder/*` and `**`/name, and exceptions. */
export function ignored(file: string, patterns: readonly string[]): boolean {
  let out = false;
  for (const pattern of patterns) {
    const bare = pattern.replace(/^!/, '');
    const expression = bare
      .replaceAll('.', '\\.')
      .replace(/^\*\*\//, '(.*/)?')
      .replaceAll(/(?<!\.)\*/g, '[^/]*');
    if (new RegExp(`^${expression}(/|$)`).test(file)) out = !pattern.startsWith('!');
  }
  return out;
}

/** What `COPY . .` brings into the first stage, by path. */
export async function buildContext(): Promise<string[]> {
  const patterns = (await readFile(path.join(ROOT, '.dockerignore'), 'utf8')).split('\n').filter((one) => one !== '');
  const { stdout } = await run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    maxBuffer: 1 << 26,
  });
  return stdout.split('\0').filter((file) => file !== '' && !ignored(file, patterns));
}

/**
 * Runs the build step of the Dockerfiles in a clean folder below `dir`; resolves with the folder that is `/out` there. Only its
 * COPY and its RUN: the tree's node_modules and what was built in it do not help.
 */
export async function buildImages(dir: string): Promise<string> {
  const source = path.join(dir, 'src');
  const out = path.join(dir, 'out');
  await rm(source, { recursive: true, force: true });
  for (const file of await buildContext()) {
    const target = path.join(source, file);
    await mkdir(path.dirname(target), { recursive: true });
    // A file that another process has just removed is not in the context either.
    await cp(path.join(ROOT, file), target).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
  }
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|VITEST|NODE_OPTIONS|NODE_PATH|SLUICE_)/.test(name)),
  );
  // Ours first: the Dockerfiles' Node is of the same major version.
  env.PATH = `${path.dirname(process.execPath)}:${process.env.PATH}`;
  await run('sh', ['deploy/images/build.sh', out], { cwd: source, env, timeout: BUILD_MS, maxBuffer: 1 << 26 });
  return out;
}
