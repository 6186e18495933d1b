import type { V1ConfigMap, V1Container, V1Pod } from '@kubernetes/client-node';
import { SIDECAR_UID } from './sluice-image.ts';

/** Ports of the Pod, as Istio lays them out, and of its app. */
export const SIDECAR_PORTS = { inbound: 15006, outbound: 15001, status: 15021, app: 8080 } as const;
export const SYSTEM_IMAGE = 'sluice.test/system:1';
const BOOTSTRAP_DIR = '/etc/sluice/bootstrap';
const SHARED = '/etc/sluice/shared';

export interface SidecarPod {
  readonly name: string;
  readonly node: string;
  /** Images of `proxy-1` and `proxy-2`. */
  readonly images: readonly [string, string];
  readonly graceSeconds?: number;
  readonly labels?: Record<string, string>;
}

/** A Pod like one that is injected: iptables in an init container, an app, and the pair of containers of the sidecar. */
export function sidecarPod({ name, node, images, graceSeconds = 60, labels = {} }: SidecarPod): V1Pod {
  const volume = (name: string, mountPath: string) => ({ name, mountPath });
  const status = { httpGet: { path: '/healthz/ready', port: SIDECAR_PORTS.status }, periodSeconds: 1 };
  const proxy = (slot: number, image: string): V1Container => ({
    name: `proxy-${slot}`,
    image,
    imagePullPolicy: 'Never',
    args: ['agent', '--proxy', name, '--bootstrap', `${BOOTSTRAP_DIR}/envoy.json`, '--concurrency', '1'],
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
    resources: { requests: { cpu: '100m', memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } },
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
  });
  const serve = `mkdir -p /tmp/www && echo done > /tmp/www/index.html && exec httpd -f -p ${SIDECAR_PORTS.app} -h /tmp/www`;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: graceSeconds,
      // The shared folder is the sidecar's: both of its containers have this group.
      securityContext: { fsGroup: SIDECAR_UID },
      volumes: [
        { name: 'bootstrap', configMap: { name: 'bootstrap' } },
        { name: 'shared', emptyDir: {} },
        { name: 'tmp', emptyDir: {} },
      ],
      initContainers: [
        {
          name: 'redirect',
          image: SYSTEM_IMAGE,
          imagePullPolicy: 'Never',
          command: ['sh', '-ec', redirect()],
          securityContext: { runAsUser: 0, capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] } },
        },
      ],
      containers: [
        proxy(1, images[0]),
        proxy(2, images[1]),
        {
          name: 'app',
          image: SYSTEM_IMAGE,
          imagePullPolicy: 'Never',
          command: ['sh', '-c', serve],
          securityContext: { runAsUser: 65_534 },
        },
      ],
    },
  };
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
