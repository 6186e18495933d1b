import type { V1ConfigMap, V1Container, V1Pod } from '@kubernetes/client-node';
import { type Injection, PORTS, parseInjection } from '@sluice/xds-server/inject/config';
import { type SidecarSet, sidecarSetOf } from '@sluice/xds-server/inject/sidecar-set';
import { inject } from '@sluice/xds-server/inject/template';
import { type ImageSpec, shell } from './images.ts';
import { SIDECAR_UID } from './sluice-image.ts';

/** Ports of the Pod, as Istio lays them out, and of its app. */
export const SIDECAR_PORTS = { ...PORTS, app: 8080 } as const;
export const SYSTEM_IMAGE = 'sluice.test/system:1';
export const EMPTY_IMAGE = 'sluice.test/empty:1';
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

/** The settings of the template that makes what injects, as the tests want them. */
export function injection(image: string, emptyImage: string, cpu = '100m'): Injection {
  return parseInjection({
    image,
    emptyImage,
    redirectImage: SYSTEM_IMAGE,
    pullPolicy: 'Never',
    bootstrap: { configMap: 'bootstrap' },
    concurrency: 1,
    resources: { requests: { cpu, memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } },
  });
}

/** A Pod that is injected: iptables in an init container, an app, and the pair of containers of the sidecar. */
export function sidecarPod({ images: [image, emptyImage], cpu, ...app }: SidecarPod): V1Pod {
  const injected = inject(appPod(app), injection(image, emptyImage, cpu));
  if (injected.type !== 'injected') throw new Error(JSON.stringify(injected));
  return injected.pod;
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
): SidecarSet {
  const selector = { matchLabels: labels };
  const options = { name: 'sidecar', namespace: 'default', selector, graceSeconds: GRACE_S };
  const { spec, ...set } = sidecarSetOf(injection(image, emptyImage), options);
  return { ...set, spec: { ...spec, containers: spec.containers.map((one) => ({ ...one, ...override })) } };
}

/** Stands for the Empty image: the same command, which does nothing. */
export function emptyImage(): ImageSpec {
  const start = '/usr/local/bin/sluice';
  const idle = 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done';
  const text = `#!/bin/sh\n[ "$2" = wait ] || [ "$2" = prestop ] && exit 0\n${idle}\n`;
  return { name: EMPTY_IMAGE, layers: [shell(), [{ path: start, text, mode: 0o755 }]], entrypoint: [start] };
}

/** The bootstrap that `sidecarPod` mounts. */
export function bootstrapMap(bootstrap: object): V1ConfigMap {
  const data = { 'envoy.json': JSON.stringify(bootstrap) };
  return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'bootstrap', namespace: 'default' }, data };
}
