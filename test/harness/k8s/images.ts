import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, existsSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type ImageFile, tar } from './tar.ts';

/** Files that images can share: an archive of several images holds a layer once, known by its identity. */
export type Layer = readonly ImageFile[];

export interface ImageSpec {
  /** With a tag, as `sluice.test/proxy:1`. No registry is asked: Pods need `imagePullPolicy: Never` or IfNotPresent. */
  readonly name: string;
  readonly layers: readonly Layer[];
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly env?: readonly string[];
  /** `uid:gid`, default root. */
  readonly user?: string;
  readonly workdir?: string;
}

/** Writes an archive as `docker save` writes it: layers, configurations, a manifest. `ctr images import` reads it. */
export async function writeImages(specs: readonly ImageSpec[], file: string): Promise<void> {
  const layers = new Map<Layer, { readonly path: string; readonly from: string; readonly diffId: string }>();
  try {
    for (const layer of specs.flatMap((spec) => spec.layers)) {
      if (layers.has(layer)) continue;
      const path = `layer-${layers.size}.tar`;
      const from = `${file}.${path}`;
      layers.set(layer, { path, from, diffId: await writeLayer(layer, from) });
    }
    const parts: ImageFile[] = [...layers.values()].map(({ path, from }) => ({ path, from }));
    const manifest = specs.map((spec) => {
      const of = spec.layers.map((layer) => layers.get(layer)!);
      const config = configuration(
        spec,
        of.map(({ diffId }) => diffId),
      );
      const name = `${createHash('sha256').update(config).digest('hex')}.json`;
      if (!parts.some(({ path }) => path === name)) parts.push({ path: name, text: config });
      return { Config: name, RepoTags: [spec.name], Layers: of.map(({ path }) => path) };
    });
    parts.push({ path: 'manifest.json', text: JSON.stringify(manifest) });
    await pipeline(tar(parts), createWriteStream(file));
  } finally {
    for (const { from } of layers.values()) await rm(from, { force: true });
  }
}

/** Resolves with the layer's id: the digest of the archive. */
async function writeLayer(layer: Layer, file: string): Promise<string> {
  const hash = createHash('sha256');
  const hashed = async function* () {
    for await (const chunk of tar(layer)) {
      hash.update(chunk);
      yield chunk;
    }
  };
  await pipeline(hashed, createWriteStream(file));
  return `sha256:${hash.digest('hex')}`;
}

function configuration(spec: ImageSpec, diffIds: readonly string[]): string {
  return JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: {
      Entrypoint: spec.entrypoint ?? null,
      Cmd: spec.cmd ?? null,
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', ...(spec.env ?? [])],
      User: spec.user ?? '',
      WorkingDir: spec.workdir ?? '/',
    },
    rootfs: { type: 'layers', diff_ids: diffIds },
    history: diffIds.map(() => ({ created: '1970-01-01T00:00:00Z' })),
  });
}

/** A program of this machine for an image: itself and the libraries that it is linked with, each at its own path. */
export function program(file: string, as = file): ImageFile[] {
  const linked = ldd(file).map((library) => ({ path: library, from: realpathSync(library), mode: 0o755 }));
  return [{ path: as, from: realpathSync(file), mode: 0o755 }, ...linked];
}

/** Paths of the libraries; none of a static program. */
function ldd(file: string): string[] {
  let told: string;
  try {
    told = execFileSync('ldd', [file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return [];
  }
  return [...told.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map(([, library = '']) => library);
}

/** A folder of this machine, with what is in it. Links to files are followed, others are left out. */
export function folder(from: string, as: string, keep: (file: string) => boolean = () => true): ImageFile[] {
  const files: ImageFile[] = [];
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const file = path.join(from, entry.name);
    if (!keep(file)) continue;
    if (entry.isDirectory()) files.push(...folder(file, path.join(as, entry.name), keep));
    else if (statSync(file).isFile()) files.push({ path: path.join(as, entry.name), from: realpathSync(file) });
  }
  return files;
}

const BUSYBOX = '/bin/busybox';
const APPLETS = ['sh', 'sleep', 'cat', 'echo', 'ls', 'ps', 'wget', 'nc', 'httpd', 'touch', 'rm', 'kill', 'true', 'id'];
APPLETS.push('env', 'mkdir', 'test', 'date', 'ip', 'mount', 'readlink', 'head', 'tail', 'grep');

/** A shell and its tools (Debian's busybox-static) for images of tests. */
export function shell(): ImageFile[] {
  if (!statSync(BUSYBOX).isFile()) throw new Error('busybox-static is not installed');
  const links = APPLETS.map((name) => ({ path: `/bin/${name}`, link: 'busybox' }));
  return [{ path: '/tmp', mode: 0o1777 }, { path: path.join('/', BUSYBOX), from: BUSYBOX }, ...links];
}

/** `iptables` with its extensions, for a container with NET_ADMIN and NET_RAW. */
export function iptables(): ImageFile[] {
  const real = realpathSync('/usr/sbin/iptables');
  const name = path.basename(real);
  const extensions = ['/usr/lib/x86_64-linux-gnu/xtables', '/usr/lib/aarch64-linux-gnu/xtables'].filter(existsSync);
  return [
    ...program(real),
    { path: '/usr/sbin/iptables', link: name === 'iptables' ? real : name },
    ...extensions.flatMap((dir) => folder(dir, dir)),
  ];
}

/** Holds the namespaces of a Pod, as Kubernetes' own pause image does. */
export function pauseImage(): ImageSpec {
  return {
    name: PAUSE_IMAGE,
    layers: [[{ path: '/bin/busybox', from: BUSYBOX }]],
    entrypoint: ['/bin/busybox', 'sleep', '2147483647'],
  };
}

export const PAUSE_IMAGE = 'sluice.test/pause:1';
