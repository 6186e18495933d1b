import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import path from 'node:path';
import { envoyBinary } from '../envoy-bin.ts';
import { folder, type ImageSpec, iptables, type Layer, program, shell } from './images.ts';
import type { ImageFile } from './tar.ts';

const ROOT = path.resolve(import.meta.dirname, '../../..');
const WORKSPACES = ['contract', 'wasm-filter', 'xds-server', 'agent', 'cli'];
/** User and group of the sidecar, as Istio has them. */
export const SIDECAR_UID = 1337;

/** A shell, iptables, and the users that an image of the sidecar names. */
export function systemLayer(): Layer {
  const users = ['root:x:0:0:root:/:/bin/sh', `sluice:x:${SIDECAR_UID}:${SIDECAR_UID}:sluice:/:/bin/sh`];
  const groups = ['root:x:0:', `sluice:x:${SIDECAR_UID}:`];
  return [
    ...shell(),
    ...iptables(),
    { path: '/etc/passwd', text: `${users.join('\n')}\n` },
    { path: '/etc/group', text: `${groups.join('\n')}\n` },
  ];
}

/** Node, what the packages depend on, and the packages as sources: `sluice` is on the PATH. */
export function sluiceLayers(): Layer[] {
  const start = '#!/bin/sh\nexec /usr/local/bin/node --conditions=sluice-source /opt/sluice/cli/src/main.ts "$@"\n';
  const sources = WORKSPACES.flatMap((name) =>
    folder(path.join(ROOT, name), `/opt/sluice/${name}`, (file) => !/node_modules|\/dist$|\.test\.ts$/.test(file)),
  );
  return [
    program(realpathSync(process.execPath), '/usr/local/bin/node'),
    [...dependencies(), { path: '/opt/sluice/package.json', from: path.join(ROOT, 'package.json') }],
    [...sources, { path: '/usr/local/bin/sluice', text: start, mode: 0o755 }],
  ];
}

export async function envoyLayer(version: string): Promise<Layer> {
  return program(await envoyBinary(version), `/opt/envoy/${version}/envoy`);
}

/** Images `sluice.test/sluice:VERSION` with that Envoy below /opt/envoy; Envoys apart, they share all layers. */
export async function sluiceImages(versions: readonly string[]): Promise<ImageSpec[]> {
  const common = [systemLayer(), ...sluiceLayers()];
  const images: ImageSpec[] = [];
  for (const version of versions) {
    images.push({
      name: `sluice.test/sluice:${version}`,
      layers: [...common, await envoyLayer(version)],
      entrypoint: ['/usr/local/bin/sluice'],
      env: ['SLUICE_ENVOYS=/opt/envoy', `SLUICE_ENVOY=${version}`],
      user: `${SIDECAR_UID}:${SIDECAR_UID}`,
    });
  }
  return images;
}

/** What `npm ls` says that the packages need when they run; a workspace is a link, as in the tree. */
function dependencies(): ImageFile[] {
  const args = ['ls', '--omit=dev', '--parseable', '--all', ...WORKSPACES.flatMap((name) => ['-w', name])];
  const told = execFileSync('npm', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const modules = path.join(ROOT, 'node_modules');
  const files: ImageFile[] = [];
  for (const dir of new Set(told.split('\n'))) {
    if (!dir.startsWith(`${modules}/`) || !existsSync(dir)) continue;
    const as = path.join('/opt/sluice', path.relative(ROOT, dir));
    // A package inside a package is told on a line of its own.
    files.push(...folder(dir, as, (file) => !file.endsWith('/node_modules') && !/\.(d\.[cm]?ts|map)$/.test(file)));
  }
  for (const name of WORKSPACES) {
    const { name: as } = JSON.parse(readFileSync(path.join(ROOT, name, 'package.json'), 'utf8')) as { name: string };
    files.push({
      path: `/opt/sluice/node_modules/${as}`,
      link: path.relative(path.dirname(`/opt/sluice/node_modules/${as}`), `/opt/sluice/${name}`),
    });
  }
  return files;
}
