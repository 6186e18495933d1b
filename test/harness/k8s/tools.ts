import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { exists, k8sCacheDir, locked } from './cache.ts';

export const KUBERNETES_VERSION = '1.36.3';
export const KRUISE_VERSION = '1.8.0';
export const HELM_VERSION = '3.22.0';
/** What `go mod download` must say of the OpenKruise module. */
const KRUISE_SUM = 'h1:cU5XG9tur17j/CuY+iCTlxOtJ0GNTtJjMLurhh+25YQ=';
/** Kubernetes 1.36 is written in Go 1.26. */
const GO_MINOR = 26;
const BUILD_MS = 60 * 60_000;

/**
 * The commands and their packages. etcd is of the version that Kubernetes itself is built with: older ones (Debian's 3.4, PyPI's
 * 3.5.1) can not be asked how far a watch is, and then the API server answers a new watch with "Too large resource version".
 */
const PACKAGES = {
  etcd: 'go.etcd.io/etcd/server/v3',
  'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
  'kube-controller-manager': 'k8s.io/kubernetes/cmd/kube-controller-manager',
  kubectl: 'k8s.io/kubernetes/cmd/kubectl',
  kubelet: 'k8s.io/kubernetes/cmd/kubelet',
} as const;
type KubernetesTool = keyof typeof PACKAGES;
export type K8sTool = KubernetesTool | 'kruise-manager' | 'helm';
/** What a cluster needs; `helm` is for the tests of the chart alone. */
export const K8S_TOOLS: readonly K8sTool[] = [...(Object.keys(PACKAGES) as KubernetesTool[]), 'kruise-manager'];

export type Progress = (line: string) => void;

export function toolPath(tool: K8sTool, env: NodeJS.ProcessEnv = process.env): string {
  if (tool === 'kruise-manager') return path.join(kruiseDir(env), tool);
  if (tool === 'helm') return path.join(k8sCacheDir(env), `helm-${HELM_VERSION}`, tool);
  return path.join(k8sCacheDir(env), `kubernetes-${KUBERNETES_VERSION}`, tool);
}

/** OpenKruise's own manifests (kustomize bases: CRDs, roles, webhooks), as its module has them. */
export function kruiseConfigDir(env: NodeJS.ProcessEnv = process.env): string {
  return path.join(kruiseDir(env), 'config');
}

function kruiseDir(env: NodeJS.ProcessEnv): string {
  return path.join(k8sCacheDir(env), `kruise-${KRUISE_VERSION}`);
}

/** Undefined when all of them are in the cache; otherwise the line that a test says before it is skipped. */
export async function missingTools(tools: readonly K8sTool[] = K8S_TOOLS): Promise<string | undefined> {
  for (const tool of tools) {
    if (!(await exists(toolPath(tool))))
      return `${tool} is not in the cache: \`npm run test:${tool === 'helm' ? 'deploy' : 'k8s'}\` builds it, with Go 1.${GO_MINOR}`;
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
        if (tool === 'kruise-manager') await buildKruise(say);
        else if (tool === 'helm') await buildHelm(say);
        else await buildKubernetes(tool, say);
        say(`${tool} is ready after ${Math.round((Date.now() - from) / 1000)} s`);
      }
      return undefined;
    } catch (error) {
      return (error as Error).message.split('\n', 1)[0];
    }
  });
}

async function buildKubernetes(tool: KubernetesTool, say: Progress): Promise<void> {
  await checkGo();
  say(`${tool} of Kubernetes ${KUBERNETES_VERSION} is built from its Go module: some minutes, once`);
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
  await goBuild(tool, module, PACKAGES[tool], flags, say);
}

async function buildHelm(say: Progress): Promise<void> {
  await checkGo();
  say(`Helm ${HELM_VERSION} is built from its Go module: a minute or two, once`);
  const module = path.join(import.meta.dirname, '../deploy/helm');
  const [major, minor] = KUBERNETES_VERSION.split('.');
  // Without them it takes a cluster that it does not ask for Kubernetes 1.20.
  const kubernetes = ['chartutil', 'lint/rules'].flatMap((pkg) => [
    `-X helm.sh/helm/v3/pkg/${pkg}.k8sVersionMajor=${major}`,
    `-X helm.sh/helm/v3/pkg/${pkg}.k8sVersionMinor=${minor}`,
  ]);
  const flags = [`-X helm.sh/helm/v3/internal/version.version=v${HELM_VERSION}`, ...kubernetes];
  await goBuild('helm', module, 'helm.sh/helm/v3/cmd/helm', flags, say);
}

/** OpenKruise is built as its own main module: so its own replacements and checksums hold. */
async function buildKruise(say: Progress): Promise<void> {
  await checkGo();
  say(`OpenKruise ${KRUISE_VERSION} is built from its Go module: some minutes, once`);
  const module = `github.com/openkruise/kruise@v${KRUISE_VERSION}`;
  const told = await run('go', ['mod', 'download', '-json', module], { cwd: k8sCacheDir() });
  const { Dir: dir, Sum: sum } = JSON.parse(told) as { Dir: string; Sum: string };
  if (sum !== KRUISE_SUM) throw new Error(`${module} has the checksum ${sum}, and ${KRUISE_SUM} was expected`);
  await copyFolder(path.join(dir, 'config'), kruiseConfigDir());
  await goBuild('kruise-manager', dir, '.', [], say);
}

/** Also beside its place first. The module cache is read-only: the copy shall not be. */
async function copyFolder(from: string, to: string): Promise<void> {
  const fresh = `${to}.${process.pid}`;
  await mkdir(fresh, { recursive: true });
  for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
    const target = path.join(fresh, path.relative(from, entry.parentPath), entry.name);
    if (entry.isDirectory()) continue;
    await mkdir(path.dirname(target), { recursive: true });
    await writeFile(target, await readFile(path.join(entry.parentPath, entry.name)));
  }
  await rm(to, { recursive: true, force: true });
  await rename(fresh, to);
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
