import path from 'node:path';
import type { V1Container } from '@kubernetes/client-node';
import type { Targets } from '../load/client.ts';
import { folder, type ImageSpec } from './images.ts';
import { APP_PORTS } from './mesh-ports.ts';
import { EMPTY_IMAGE, emptyImage, SYSTEM_IMAGE } from './sidecar-pod.ts';
import { sluiceImages, systemLayer } from './sluice-image.ts';

export const VERSIONS = ['1.39.3', '1.40.0'] as const;
export const sluice = (version: string) => `sluice.test/sluice:${version}`;
/** The same without an agent: an Envoy and nothing else. */
export const bare = (version: string) => `sluice.test/bare:${version}`;
/** With a postStart that is over LATE_S after the epoch serves. */
export const late = (version: string) => `sluice.test/late:${version}`;
export const LATE_S = 20;
export { EMPTY_IMAGE };

const APP_IMAGE = 'sluice.test/app:1';
const ROOT = path.resolve(import.meta.dirname, '../../..');
const COMMAND = '/usr/local/bin/sluice';

/** Everything that Pods of these tests run; layers are shared. */
export async function meshImages(): Promise<ImageSpec[]> {
  const agents = await sluiceImages(VERSIONS);
  const replaced = (name: (version: string) => string, script: string): ImageSpec[] => {
    const layer = [{ path: COMMAND, text: script, mode: 0o755 }];
    return agents.map((spec, i) => ({ ...spec, name: name(VERSIONS[i] as string), layers: [...spec.layers, layer] }));
  };
  const app = [
    ...folder(path.join(ROOT, 'test/harness'), '/opt/sluice/test/harness', isSource),
    { path: '/opt/sluice/test/matrix/redirect-load.ts', from: path.join(ROOT, 'test/matrix/redirect-load.ts') },
    ...folder(path.join(ROOT, 'node_modules/ws'), '/opt/sluice/node_modules/ws'),
  ];
  const main = '/opt/sluice/test/harness/k8s/app-main.ts';
  return [
    ...agents,
    ...replaced(bare, BARE),
    ...replaced(late, LATE),
    {
      name: APP_IMAGE,
      // All but the Envoy.
      layers: [...(agents[0]?.layers.slice(0, -1) ?? []), app],
      entrypoint: ['/usr/local/bin/node', '--conditions=sluice-source', main],
    },
    { name: SYSTEM_IMAGE, layers: [systemLayer()] },
    emptyImage(),
  ];
}

const isSource = (file: string) => /\/[^.]+$|\.ts$/.test(file) && !file.endsWith('.test.ts');

const BARE = `#!/bin/sh
case "$2" in wait|prestop|status) exit 0;; esac
exec /opt/envoy/*/envoy -c /etc/sluice/bootstrap/envoy.json --use-dynamic-base-id --concurrency 1
`;
const NODE = '/usr/local/bin/node --conditions=sluice-source /opt/sluice/cli/src/main.ts "$@"';
const LATE = `#!/bin/sh
[ "$2" = wait ] || exec ${NODE}
${NODE} && sleep ${LATE_S}
`;

/** An app that serves all protocols, and calls the world. */
export function loadApp(world: Targets): V1Container {
  const env = [{ name: 'WORLD', value: JSON.stringify(world) }];
  // A startup probe: what it measures is not to be the app's readiness.
  const command = ['wget', '-q', '-O', '/dev/null', `http://127.0.0.1:${APP_PORTS.load}/`];
  const startupProbe = { exec: { command }, periodSeconds: 1, failureThreshold: 60, timeoutSeconds: 5 };
  // Without a request its share of a busy machine is next to nothing, and its clocks say so.
  const resources = { requests: { cpu: '300m' } };
  return { name: 'app', image: APP_IMAGE, env, startupProbe, resources };
}
