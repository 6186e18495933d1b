import type { KubernetesObject, V1Container, V1Pod } from '@kubernetes/client-node';
import { type ImageSpec, shell } from './images.ts';

/**
 * Pairs without agents, for what OpenKruise and the kubelet do: each container notes its start with the pair of versions that
 * OpenKruise tells it, and is ready at once; `bad` ends at once.
 */
const RUN =
  'echo "$(cat /version) $SIDECARSET_VERSION $SIDECARSET_VERSION_ALT" >> /notes/log; ' +
  'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done';

export const shellImage = (version: string) => `sluice.test/proxy:${version}`;
export const SHELL_EMPTY = shellImage('empty');

export function shellImages(...versions: readonly string[]): ImageSpec[] {
  const common = shell();
  return [...versions, 'empty'].map((version) => ({
    name: shellImage(version),
    layers: [common, [{ path: '/version', text: version }]],
    entrypoint: ['/bin/sh', '-c', version === 'bad' ? 'exit 3' : RUN],
  }));
}

const NOTES = { name: 'notes', mountPath: '/notes' };

export function shellSet(version: string, labels: Record<string, string>): KubernetesObject {
  const container: V1Container = {
    name: 'proxy',
    image: shellImage(version),
    imagePullPolicy: 'Never',
    readinessProbe: { exec: { command: ['test', '-e', '/version'] }, periodSeconds: 1 },
    volumeMounts: [NOTES],
  };
  const spec = {
    namespace: 'default',
    selector: { matchLabels: labels },
    updateStrategy: { type: 'RollingUpdate', partition: 0, maxUnavailable: 1 },
    volumes: [{ name: 'notes', emptyDir: {} }],
    containers: [
      {
        ...container,
        podInjectPolicy: 'BeforeAppContainer',
        shareVolumePolicy: { type: 'disabled' },
        upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: SHELL_EMPTY },
      },
    ],
  };
  const metadata = { name: Object.values(labels).join('-') };
  return { apiVersion: 'apps.kruise.io/v1alpha1', kind: 'SidecarSet', metadata, spec } as KubernetesObject;
}

export function shellPod(name: string, node: string, labels: Record<string, string>): V1Pod {
  const app: V1Container = {
    name: 'app',
    image: SHELL_EMPTY,
    imagePullPolicy: 'Never',
    command: ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done'],
    volumeMounts: [NOTES],
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', labels },
    spec: {
      nodeName: node,
      terminationGracePeriodSeconds: 5,
      volumes: [{ name: 'notes', emptyDir: {} }],
      containers: [app],
    },
  };
}
