import type { KubernetesObject, V1ConfigMap, V1Container, V1Pod, V1Volume } from '@kubernetes/client-node';
import { type ImageSpec, shell } from './images.ts';
import { SIDECAR_UID } from './sluice-image.ts';

/** Ports of the Pod, as Istio lays them out, and of its app. */
export const SIDECAR_PORTS = { inbound: 15006, outbound: 15001, status: 15021, app: 8080 } as const;
export const SYSTEM_IMAGE = 'sluice.test/system:1';
export const EMPTY_IMAGE = 'sluice.test/empty:1';
const BOOTSTRAP_DIR = '/etc/sluice/bootstrap';
const SHARED = '/etc/sluice/shared';
const GRACE_S = 60;

export interface SidecarPod {
  readonly name: string;
  readonly node: string;
  /** Images of `proxy-1` and `proxy-2`. */
  readonly images: readonly [string, string];
  readonly graceSeconds?: number;
  readonly labels?: Record<string, string>;
  /**
   * CPU that each of the two containers requests, default 100m as the reference has it. A kubelet refuses (`OutOfcpu`) what is more
   * than the machine's cores: a fleet asks for less.
   */
  readonly cpu?: string;
}

const volume = (name: string, mountPath: string) => ({ name, mountPath });

/** The sidecar's container but for its name and image: what Istio's is like, with our agent. */
function proxy(graceSeconds: number, cpu = '100m'): Omit<V1Container, 'name'> {
  const status = { httpGet: { path: '/healthz/ready', port: SIDECAR_PORTS.status }, periodSeconds: 1 };
  return {
    imagePullPolicy: 'Never',
    args: ['agent', '--proxy', 'sidecar', '--bootstrap', `${BOOTSTRAP_DIR}/envoy.json`, '--concurrency', '1'],
    env: [
      { name: 'SLUICE_SHARED', value: SHARED },
      { name: 'SLUICE_STATUS_ADDRESS', value: `0.0.0.0:${SIDECAR_PORTS.status}` },
      { name: 'SLUICE_TERMINATION_GRACE_S', value: String(graceSeconds) },
    ],
    lifecycle: {
      postStart: { exec: { command: ['sluice', 'agent', 'wait'] } },
      preStop: { exec: { command: ['sluice', 'agent', 'prestop'] } },
    },
    readinessProbe: status,
    resources: { requests: { cpu, memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      privileged: false,
      readOnlyRootFilesystem: true,
      runAsGroup: SIDECAR_UID,
      runAsNonRoot: true,
      runAsUser: SIDECAR_UID,
    },
    volumeMounts: [volume('bootstrap', BOOTSTRAP_DIR), volume('shared', SHARED), volume('tmp', '/tmp')],
  };
}

const volumes = (): V1Volume[] => [
  { name: 'bootstrap', configMap: { name: 'bootstrap' } },
  { name: 'shared', emptyDir: {} },
  { name: 'tmp', emptyDir: {} },
];

const redirector = (): V1Container => ({
  name: 'redirect',
  image: SYSTEM_IMAGE,
  imagePullPolicy: 'Never',
  command: ['sh', '-ec', redirect()],
  securityContext: { runAsUser: 0, capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] } },
});

/** A Pod like one that is injected: iptables in an init container, an app, and the pair of containers of the sidecar. */
export function sidecarPod({ images, cpu, ...app }: SidecarPod): V1Pod {
  const pod = appPod(app);
  const container = proxy(app.graceSeconds ?? GRACE_S, cpu);
  const pair = images.map((image, i) => ({ name: `proxy-${i + 1}`, image, ...container }));
  const spec = { ...pod.spec, volumes: volumes(), initContainers: [redirector()] };
  return { ...pod, spec: { ...spec, containers: [...pair, ...(pod.spec?.containers ?? [])] } };
}

/** A line each second, as many as the query says, then `end`. */
const SLOW = `#!/bin/sh
echo "content-type: text/plain"; echo
n=0; while [ $n -lt $QUERY_STRING ]; do n=$((n+1)); echo $n; sleep 1; done; echo end
`;

/** The Pod before injection. Its app answers `done`, and `/cgi-bin/slow?SECONDS` takes so long. */
export function appPod({ name, node, graceSeconds = GRACE_S, labels = {} }: Omit<SidecarPod, 'images' | 'cpu'>): V1Pod {
  const serve = [
    'mkdir -p /tmp/www/cgi-bin && echo done > /tmp/www/index.html',
    'echo "$SLOW" > /tmp/www/cgi-bin/slow && chmod +x /tmp/www/cgi-bin/slow',
    `exec httpd -f -p ${SIDECAR_PORTS.app} -h /tmp/www`,
  ].join(' && ');
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: graceSeconds,
      // The shared folder is the sidecar's: both of its containers have this group.
      securityContext: { fsGroup: SIDECAR_UID },
      containers: [
        {
          name: 'app',
          image: SYSTEM_IMAGE,
          imagePullPolicy: 'Never',
          command: ['sh', '-c', serve],
          env: [{ name: 'SLOW', value: SLOW }],
          securityContext: { runAsUser: 65_534 },
        },
      ],
    },
  };
}

/** A SidecarSet that makes of `appPod` what `sidecarPod` is. @param override fields of the sidecar's container */
export function sidecarSet(
  image: string,
  emptyImage: string,
  labels: Record<string, string>,
  override: Partial<V1Container> = {},
): KubernetesObject {
  const spec = {
    namespace: 'default',
    selector: { matchLabels: labels },
    updateStrategy: { type: 'RollingUpdate', partition: 0, maxUnavailable: 1 },
    volumes: volumes(),
    initContainers: [redirector()],
    containers: [
      {
        name: 'proxy',
        image,
        ...proxy(GRACE_S),
        ...override,
        podInjectPolicy: 'BeforeAppContainer',
        shareVolumePolicy: { type: 'disabled' },
        upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: emptyImage },
      },
    ],
  };
  const object = { apiVersion: 'apps.kruise.io/v1alpha1', kind: 'SidecarSet', metadata: { name: 'sidecar' }, spec };
  return object;
}

/** Stands for the Empty image: the same command, which does nothing. */
export function emptyImage(): ImageSpec {
  const start = '/usr/local/bin/sluice';
  const idle = 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done';
  const text = `#!/bin/sh\n[ "$2" = wait ] || [ "$2" = prestop ] && exit 0\n${idle}\n`;
  return { name: EMPTY_IMAGE, layers: [shell(), [{ path: start, text, mode: 0o755 }]], entrypoint: [start] };
}

/** As istio-iptables does it: all inbound but the status port to Envoy; all outbound but Envoy's own and loopback's too. */
function redirect(): string {
  const nat = 'iptables -t nat -A';
  const to = (port: number) => `-j REDIRECT --to-ports ${port}`;
  return [
    `${nat} PREROUTING -p tcp ! --dport ${SIDECAR_PORTS.status} ${to(SIDECAR_PORTS.inbound)}`,
    `${nat} OUTPUT -p tcp -m owner --uid-owner ${SIDECAR_UID} -j RETURN`,
    `${nat} OUTPUT -p tcp -d 127.0.0.0/8 -j RETURN`,
    `${nat} OUTPUT -p tcp ${to(SIDECAR_PORTS.outbound)}`,
  ].join('\n');
}

/** The bootstrap that `sidecarPod` mounts. */
export function bootstrapMap(bootstrap: object): V1ConfigMap {
  const data = { 'envoy.json': JSON.stringify(bootstrap) };
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'bootstrap', namespace: 'default' }, data };
}
