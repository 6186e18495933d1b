import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream, realpathSync, statSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { type ImageFile, tar } from './tar.ts';

export interface ImageSpec {
  /** With a tag, as `sluice.test/proxy:1`. No registry is asked: Pods need `imagePullPolicy: Never` or IfNotPresent. */
  readonly name: string;
  readonly files: readonly ImageFile[];
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  readonly env?: readonly string[];
  /** `uid:gid`, default root. */
  readonly user?: string;
  readonly workdir?: string;
}

/** Writes an archive as `docker save` writes it: one layer, its configuration, a manifest. `ctr images import` reads it. */
export async function writeImage(spec: ImageSpec, file: string): Promise<void> {
  const layer = `${file}.layer`;
  try {
    const hash = createHash('sha256');
    const hashed = async function* () {
      for await (const chunk of tar(spec.files)) {
        hash.update(chunk);
        yield chunk;
      }
    };
    await pipeline(hashed, createWriteStream(layer));
    const config = JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      config: {
        Entrypoint: spec.entrypoint ?? null,
        Cmd: spec.cmd ?? null,
        Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', ...(spec.env ?? [])],
        User: spec.user ?? '',
        WorkingDir: spec.workdir ?? '/',
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
      history: [{ created: '1970-01-01T00:00:00Z' }],
    });
    const name = `${createHash('sha256').update(config).digest('hex')}.json`;
    const manifest = JSON.stringify([{ Config: name, RepoTags: [spec.name], Layers: ['layer.tar'] }]);
    const parts: ImageFile[] = [
      { path: name, text: config },
      { path: 'layer.tar', from: layer },
      { path: 'manifest.json', text: manifest },
    ];
    await pipeline(tar(parts), createWriteStream(file));
  } finally {
    await rm(layer, { force: true });
  }
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

const BUSYBOX = '/bin/busybox';
const APPLETS = ['sh', 'sleep', 'cat', 'echo', 'ls', 'ps', 'wget', 'nc', 'httpd', 'touch', 'rm', 'kill', 'true', 'id'];
APPLETS.push('env', 'mkdir', 'test', 'date', 'ip', 'mount', 'readlink', 'head', 'tail', 'grep');

/** A shell and its tools (Debian's busybox-static) for images of tests. */
export function shell(): ImageFile[] {
  if (!statSync(BUSYBOX).isFile()) throw new Error('busybox-static is not installed');
  const links = APPLETS.map((name) => ({ path: `/bin/${name}`, link: 'busybox' }));
  return [{ path: '/tmp', mode: 0o1777 }, { path: path.join('/', BUSYBOX), from: BUSYBOX }, ...links];
}

/** Holds the namespaces of a Pod, as Kubernetes' own pause image does. */
export function pauseImage(): ImageSpec {
  return {
    name: PAUSE_IMAGE,
    files: [{ path: '/bin/busybox', from: BUSYBOX }],
    entrypoint: ['/bin/busybox', 'sleep', '2147483647'],
  };
}

export const PAUSE_IMAGE = 'sluice.test/pause:1';
