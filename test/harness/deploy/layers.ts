import { readdirSync, readlinkSync } from 'node:fs';
import path from 'node:path';
import { type Layer, program, shell } from '../k8s/images.ts';
import type { ImageFile } from '../k8s/tar.ts';
import { type Dockerfile, finalImage } from './dockerfile.ts';

/** A folder with its links as they are. */
export function tree(from: string, as: string): ImageFile[] {
  return readdirSync(from, { withFileTypes: true }).flatMap((entry): ImageFile[] => {
    const [file, to] = [path.join(from, entry.name), path.join(as, entry.name)];
    if (entry.isDirectory()) return tree(file, to);
    return [entry.isSymbolicLink() ? { path: to, link: readlinkSync(file) } : { path: to, from: file }];
  });
}

/**
 * The last stage of a Dockerfile as an image for a test's node. Its base is not to be had here: in its place are a folder /tmp,
 * the libraries that the programs are linked with, and busybox where the base has a shell.
 * @param out what the build step made. @param envoy path of that Envoy, for the sidecar
 */
export function imageFromDockerfile(file: Dockerfile, name: string, out: string, envoy?: string) {
  const base: Layer = envoy === undefined ? [{ path: '/tmp', mode: 0o1777 }] : shell();
  return finalImage(file, name, base, {
    'build:/usr/local/bin/node': (to) => program(process.execPath, to),
    'build:/out/': (to) => tree(out, to),
    ...(envoy !== undefined && { 'envoy:/usr/local/bin/envoy': (to: string) => program(envoy, to) }),
  });
}
