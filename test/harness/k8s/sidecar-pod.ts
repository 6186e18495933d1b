import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import type { KubernetesObject, V1ConfigMap, V1Container, V1Pod } from '@kubernetes/client-node';
import { type InjectionConfig, PORTS, parseInjection, SIDECAR_USER } from '@sluice/xds-server/inject/config';
import { sidecarSetOf } from '@sluice/xds-server/inject/sidecar-set';
import { inject } from '@sluice/xds-server/inject/template';
import { k8sCacheDir } from './cache.ts';
import type { ImageSpec } from './images.ts';

/** Ports of the Pod, as Istio lays them out, and of its app. */
export const SIDECAR_PORTS = { ...PORTS, app: 8080 } as const;
export const SYSTEM_IMAGE = 'sluice.test/system:1';
export const EMPTY_IMAGE = 'sluice.test/empty:1';
const EMPTY_SOURCE = path.resolve(import.meta.dirname, '../../../deploy/empty/empty.c');
const BOOTSTRAP = 'bootstrap';
const GRACE_S = 60;

export interface AppPod {
  readonly name: string;
  readonly node: string;
  readonly graceSeconds?: number;
  readonly labels?: Record<string, string>;
  /** In place of the small web server. */
  readonly app?: V1Container;
}

export interface SidecarPod extends AppPod, Sidecar {
  /** Images of `proxy-1` and `proxy-2`. */
  readonly images: readonly [string, string];
}

/** What a test's sidecar may have otherwise. */
export interface Sidecar {
  /** API address of a controller as Pods reach it; none: the agents decide alone. */
  readonly controller?: string;
  readonly xds?: string;
  /** The ConfigMap of the bootstrap. */
  readonly bootstrap?: string;
  /**
   * CPU that each of the two containers requests, default 100m as the reference has it. A kubelet refuses (`OutOfcpu`) what is more
   * than the machine's cores: a fleet asks for less.
   */
  readonly cpu?: string;
}

function injection(image: string, emptyImage: string, { controller, xds, bootstrap, cpu = '100m' }: Sidecar) {
  const config: InjectionConfig = {
    image,
    emptyImage,
    redirectImage: SYSTEM_IMAGE,
    pullPolicy: 'Never',
    bootstrap: { configMap: bootstrap ?? BOOTSTRAP },
    controllers: controller === undefined ? [] : [controller],
    ...(xds !== undefined && { xds }),
    concurrency: 1,
    resources: { requests: { cpu, memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } },
  };
  return parseInjection(config);
}

/** A Pod as our template injects it: iptables in an init container, an app, and the pair of containers of the sidecar. */
export function sidecarPod({ images, ...pod }: SidecarPod): V1Pod {
  const done = inject(appPod(pod), injection(images[0], images[1], pod));
  if (done.type !== 'injected') throw new Error(`the Pod was not injected: ${JSON.stringify(done)}`);
  return done.pod;
}

/** A line each second, as many as the query says, then `end`. */
const SLOW = `#!/bin/sh
echo "content-type: text/plain"; echo
n=0; while [ $n -lt $QUERY_STRING ]; do n=$((n+1)); echo $n; sleep 1; done; echo end
`;

/** Answers `done`, and `/cgi-bin/slow?SECONDS` takes so long. */
function webServer(): V1Container {
  const serve = [
    'mkdir -p /tmp/www/cgi-bin && echo done > /tmp/www/index.html',
    'echo "$SLOW" > /tmp/www/cgi-bin/slow && chmod +x /tmp/www/cgi-bin/slow',
    `exec httpd -f -p ${SIDECAR_PORTS.app} -h /tmp/www`,
  ].join(' && ');
  const command = ['sh', '-c', serve];
  return { name: 'app', image: SYSTEM_IMAGE, command, env: [{ name: 'SLOW', value: SLOW }] };
}

/** The Pod before injection. */
export function appPod({ name, node, graceSeconds = GRACE_S, labels = {}, app = webServer() }: AppPod): V1Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: graceSeconds,
      // The shared folder is the sidecar's: both of its containers have this group.
      securityContext: { fsGroup: SIDECAR_USER },
      containers: [{ ...app, imagePullPolicy: 'Never', securityContext: { runAsUser: 65_534 } }],
    },
  };
}

export interface SetOptions extends Sidecar {
  readonly name?: string;
  readonly emptyImage?: string;
  readonly graceSeconds?: number;
  /** Fields of the sidecar's container that replace those of the template. */
  readonly override?: Partial<V1Container>;
}

/** A SidecarSet that makes of `appPod` what `sidecarPod` is. */
export function sidecarSet(image: string, labels: Record<string, string>, options: SetOptions = {}): KubernetesObject {
  const { name = 'sidecar', emptyImage = EMPTY_IMAGE, graceSeconds = GRACE_S, override = {} } = options;
  const selector = { matchLabels: labels };
  const set = sidecarSetOf(injection(image, emptyImage, options), {
    name,
    namespace: 'default',
    selector,
    graceSeconds,
  });
  const spec = set.spec as unknown as { containers: V1Container[] };
  return {
    ...set,
    spec: { ...spec, containers: spec.containers.map((one) => ({ ...one, ...override })) },
  } as typeof set;
}

/** The Empty image: the static program of deploy/empty, compiled once. Needs a C compiler. */
export function emptyImage(): ImageSpec {
  const start = '/usr/local/bin/sluice';
  const layers = [[{ path: start, from: emptyProgram(), mode: 0o755 }]];
  return { name: EMPTY_IMAGE, layers, entrypoint: [start], user: `${SIDECAR_USER}:${SIDECAR_USER}` };
}

function emptyProgram(): string {
  const digest = createHash('sha256').update(readFileSync(EMPTY_SOURCE)).digest('hex').slice(0, 16);
  const dir = path.join(k8sCacheDir(), `empty-${digest}`);
  const program = path.join(dir, 'sluice');
  if (existsSync(program)) return program;
  mkdirSync(dir, { recursive: true });
  // Another test may be compiling it too: whoever is last puts the same there.
  const made = `${program}.${process.pid}`;
  execFileSync('cc', ['-std=c11', '-Os', '-s', '-static', '-o', made, EMPTY_SOURCE]);
  renameSync(made, program);
  return program;
}

/** The bootstrap that `sidecarPod` mounts. */
export function bootstrapMap(bootstrap: object, name = BOOTSTRAP): V1ConfigMap {
  const data = { 'envoy.json': JSON.stringify(bootstrap) };
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace: 'default' }, data };
}
