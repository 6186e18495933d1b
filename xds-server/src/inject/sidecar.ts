import type { V1Container, V1EnvVar, V1Volume, V1VolumeMount } from '@kubernetes/client-node';
import { type Injection, PORTS, SIDECAR_USER } from './config.ts';
import { redirectScript } from './redirect.ts';

export const PATHS = {
  bootstrap: '/etc/sluice/bootstrap',
  shared: '/etc/sluice/shared',
  podinfo: '/etc/sluice/podinfo',
  token: '/etc/sluice/token',
} as const;
export const REDIRECT_NAME = 'sluice-redirect';
/** The kubelet's default, and the API server's. */
export const DEFAULT_GRACE_S = 30;

/** A timer of the agent's takes no more than 2^31 ms. The API server takes negative ones too, and means the least. */
const LONGEST_GRACE_S = 2_147_483;

/**
 * The container of the sidecar but for its name, its image and its slot: OpenKruise gives both of the pair the same, and so does the
 * webhook. The command is the image's entry point, which the Empty image has too.
 * @param graceSeconds the Pod's terminationGracePeriodSeconds, which nobody tells a container
 */
export function sidecar(config: Injection, graceSeconds: number): Omit<V1Container, 'name' | 'image'> {
  return {
    ...pull(config),
    args: [
      'agent',
      '--bootstrap',
      `${PATHS.bootstrap}/${config.bootstrap.key}`,
      '--concurrency',
      `${config.concurrency}`,
    ],
    env: environment(config, graceSeconds),
    lifecycle: {
      postStart: { exec: { command: ['sluice', 'agent', 'wait'] } },
      preStop: { exec: { command: ['sluice', 'agent', 'prestop'] } },
    },
    // There is one status port, which the agents pass on: it answers for both containers. No liveness probe: the agent itself
    // relaunches its Envoy, and a restart of the container would cut what drains.
    readinessProbe: { httpGet: { path: '/healthz/ready', port: PORTS.status }, periodSeconds: 1 },
    resources: config.resources as V1Container['resources'] & object,
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      privileged: false,
      readOnlyRootFilesystem: true,
      runAsGroup: SIDECAR_USER,
      runAsNonRoot: true,
      runAsUser: SIDECAR_USER,
    },
    volumeMounts: mounts(config),
  };
}

function environment(config: Injection, graceSeconds: number): V1EnvVar[] {
  const field = (name: string, fieldPath: string): V1EnvVar => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  const value = (name: string, text: string | undefined): V1EnvVar[] =>
    text === undefined ? [] : [{ name, value: text }];
  const { clusterId, controllers, xds, token } = config;
  const { families } = config.interception;
  const labels = ['sluice.dev/pod-uid=$(POD_UID)'];
  if (clusterId !== undefined) labels.push('sluice.dev/cluster=$(CLUSTER_ID)');
  return [
    // What later values refer to comes first: `$(NAME)` knows only those before it.
    field('POD_NAME', 'metadata.name'),
    field('POD_NAMESPACE', 'metadata.namespace'),
    field('POD_UID', 'metadata.uid'),
    field('INSTANCE_IP', 'status.podIP'),
    field('SERVICE_ACCOUNT', 'spec.serviceAccountName'),
    ...(clusterId === undefined
      ? []
      : [{ name: 'CLUSTER_ID', valueFrom: { configMapKeyRef: { name: clusterId.configMap, key: clusterId.key } } }]),
    ...value('SLUICE_PROXY', '$(POD_NAME).$(POD_NAMESPACE)'),
    ...value('SLUICE_LABEL', labels.join(',')),
    ...value('SLUICE_SHARED', PATHS.shared),
    // The kubelet asks at the Pod's address; [::] has both families.
    ...value('SLUICE_STATUS_ADDRESS', `${families.includes('IPv6') ? '[::]' : '0.0.0.0'}:${PORTS.status}`),
    ...value('SLUICE_TERMINATION_GRACE_S', String(Math.min(Math.max(0, graceSeconds), LONGEST_GRACE_S))),
    ...value('SLUICE_PODINFO', `${PATHS.podinfo}/annotations`),
    ...value('SLUICE_CONTROLLER', controllers.length === 0 ? undefined : controllers.join(',')),
    ...value('SLUICE_XDS', xds),
    ...value('SLUICE_TOKEN_FILE', token && `${PATHS.token}/${token.key}`),
  ];
}

function mounts({ token }: Injection): V1VolumeMount[] {
  const mount = (name: string, mountPath: string, readOnly = false): V1VolumeMount => ({
    name,
    mountPath,
    ...(readOnly && { readOnly }),
  });
  return [
    mount('sluice-bootstrap', PATHS.bootstrap, true),
    mount('sluice-shared', PATHS.shared),
    mount('sluice-podinfo', PATHS.podinfo, true),
    mount('sluice-tmp', '/tmp'),
    ...(token === undefined ? [] : [mount('sluice-token', PATHS.token, true)]),
  ];
}

/**
 * The volumes of the pair. `/dev/shm`, which Envoy's hot restart needs, is none of them: containers of a Pod share its IPC
 * namespace, and with it that mount of the runtime's. Another one there would keep the two apart from a SidecarSet's.
 */
export function sidecarVolumes({ bootstrap, token }: Injection): V1Volume[] {
  const item = (path: string, fieldPath: string) => ({ path, fieldRef: { fieldPath } });
  return [
    { name: 'sluice-bootstrap', configMap: { name: bootstrap.configMap } },
    { name: 'sluice-shared', emptyDir: {} },
    {
      name: 'sluice-podinfo',
      downwardAPI: { items: [item('labels', 'metadata.labels'), item('annotations', 'metadata.annotations')] },
    },
    { name: 'sluice-tmp', emptyDir: {} },
    ...(token === undefined ? [] : [{ name: 'sluice-token', secret: { secretName: token.secret } }]),
  ];
}

/** The init container that redirects; none where nothing is to be redirected. */
export function redirector(config: Injection): V1Container[] {
  if (config.interception.mode === 'None') return [];
  return [
    {
      name: REDIRECT_NAME,
      image: config.redirectImage ?? config.image,
      ...pull(config),
      command: ['sh', '-ec', redirectScript(config.interception)],
      resources: { requests: { cpu: '10m', memory: '32Mi' }, limits: { cpu: '500m', memory: '128Mi' } },
      securityContext: {
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] },
        privileged: false,
        readOnlyRootFilesystem: true,
        runAsGroup: 0,
        runAsNonRoot: false,
        runAsUser: 0,
      },
    },
  ];
}

const pull = ({ pullPolicy }: Injection) => (pullPolicy === undefined ? {} : { imagePullPolicy: pullPolicy });
