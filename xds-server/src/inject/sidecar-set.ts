import type { KubernetesObject, V1Container, V1LabelSelector } from '@kubernetes/client-node';
import type { Injection } from './config.ts';
import { redirector, sidecar, sidecarVolumes } from './sidecar.ts';

export interface SidecarSetOptions {
  readonly name: string;
  /** All namespaces when absent. */
  readonly namespace?: string | undefined;
  readonly selector: V1LabelSelector;
  /** That of the Pods: OpenKruise does not tell it. */
  readonly graceSeconds: number;
}

/** The fields that we write. */
export interface SidecarSet extends KubernetesObject {
  readonly spec: {
    readonly containers: readonly (V1Container & Readonly<Record<string, unknown>>)[];
    readonly [field: string]: unknown;
  };
}

/**
 * The same sidecar by OpenKruise, which makes the pair, its Empty image and the versions SIDECARSET_VERSION and _ALT of it. The slot is
 * found by the container's name, for OpenKruise gives both of the pair the same environment.
 */
export function sidecarSetOf(config: Injection, options: SidecarSetOptions): SidecarSet {
  const { name, namespace, selector, graceSeconds } = options;
  return {
    apiVersion: 'apps.kruise.io/v1alpha1',
    kind: 'SidecarSet',
    metadata: { name },
    spec: {
      ...(namespace !== undefined && { namespace }),
      selector,
      updateStrategy: { type: 'RollingUpdate', partition: 0, maxUnavailable: 1 },
      volumes: sidecarVolumes(config),
      initContainers: redirector(config),
      containers: [
        {
          name: config.container,
          image: config.image,
          ...sidecar(config, graceSeconds),
          podInjectPolicy: 'BeforeAppContainer',
          shareVolumePolicy: { type: 'disabled' },
          upgradeStrategy: { upgradeType: 'HotUpgrade', hotUpgradeEmptyImage: config.emptyImage },
        },
      ],
    },
  };
}
