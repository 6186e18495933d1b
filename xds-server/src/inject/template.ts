import { createHash } from 'node:crypto';
import type { V1Container, V1Pod, V1PodSpec } from '@kubernetes/client-node';
import { SluiceError } from '@sluice/contract';
import { foreignMark, foreignProxy } from '../kube/foreign.ts';
import { asked, configFor, STATUS } from './annotations.ts';
import { type Injection, PORTS, SIDECAR_USER } from './config.ts';
import { type AddOperation, additions } from './patch.ts';
import { DEFAULT_GRACE_S, REDIRECT_NAME, redirector, sidecar, sidecarVolumes } from './sidecar.ts';

export type Injected =
  | {
      readonly type: 'injected';
      readonly pod: V1Pod;
      readonly patch: readonly AddOperation[];
      readonly warnings: string[];
    }
  /** The Pod stays as it is: it wants no sidecar, has one of ours, or can not have one and did not ask. */
  | { readonly type: 'skipped'; readonly why: string; readonly warnings: string[] }
  /** It must not start like this. */
  | { readonly type: 'refused'; readonly error: SluiceError };

/** What STATUS says: which pair a Pod was given. */
export interface InjectionStatus {
  readonly container: string;
  readonly native: boolean;
  readonly image: string;
  readonly emptyImage: string;
  /** Of the parts that were injected: the same digest = the same template. */
  readonly template: string;
}

const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container';
const MIRROR = 'kubernetes.io/config.mirror';

/**
 * The Pod with the sidecar, as a pure function. The order of the checks is that of how much they say:
 *
 *   it wants none -> skipped      another injector's proxy -> refused      ours already -> skipped
 *   no network of its own, Windows, static -> skipped with a warning; refused when the Pod itself asks
 *   a wrong annotation, a name or port of ours taken -> refused
 *
 * A foreign proxy is looked for before our own: when another injector comes after us, the API server calls us again
 * (reinvocationPolicy), and then the Pod has both.
 */
export function inject(pod: V1Pod, defaults: Injection): Injected {
  try {
    return decide(pod, defaults);
  } catch (thrown) {
    if (thrown instanceof SluiceError) return { type: 'refused', error: thrown };
    throw thrown;
  }
}

function decide(pod: V1Pod, defaults: Injection): Injected {
  const wanted = asked(pod);
  if (wanted === false) return skip('the Pod wants no sidecar');
  const status = injectionStatus(pod);
  const foreign = foreignProxy(pod, status === undefined ? [] : pairNames(status.container)) ?? foreignMark(pod);
  if (foreign !== undefined) {
    throw new SluiceError('POD_FOREIGN_PROXY', `another injector gave the Pod a proxy already: ${foreign}`);
  }
  if (status !== undefined)
    return skip(`the Pod has the containers ${pairNames(status.container).join(' and ')} already`);
  const unfit = unfitness(pod);
  if (unfit !== undefined) {
    if (wanted) throw new SluiceError('POD_NOT_INJECTABLE', `the Pod can not have a sidecar: ${unfit}`);
    return skip(unfit, [`sluice: no sidecar: ${unfit}`]);
  }
  const { config, unknown } = configFor(pod, defaults);
  const clash = clashOf(pod, config);
  if (clash !== undefined) throw new SluiceError('POD_NOT_INJECTABLE', `the Pod can not have a sidecar: ${clash}`);
  const after = withSidecar(pod, config);
  return { type: 'injected', pod: after, patch: additions(pod, after), warnings: warningsOf(pod, config, unknown) };
}

/** What the Pod was given by us, as long as the containers are there: an annotation that was copied alone says nothing. */
export function injectionStatus({ metadata, spec }: V1Pod): InjectionStatus | undefined {
  const text = metadata?.annotations?.[STATUS];
  if (text === undefined) return undefined;
  let status: Partial<InjectionStatus> | null;
  try {
    status = JSON.parse(text) as Partial<InjectionStatus> | null;
  } catch {
    return undefined;
  }
  if (typeof status?.container !== 'string') return undefined;
  const list = (status.native ? spec?.initContainers : spec?.containers) ?? [];
  const there = pairNames(status.container).every((name) => list.some((container) => container.name === name));
  return there ? (status as InjectionStatus) : undefined;
}

function withSidecar(pod: V1Pod, config: Injection): V1Pod {
  const spec = pod.spec as V1PodSpec;
  const pair = sidecarPair(config, spec.terminationGracePeriodSeconds ?? DEFAULT_GRACE_S);
  const redirect = redirector(config);
  const volumes = sidecarVolumes(config);
  const { containers, initContainers: inits = [] } = spec;
  // Plain containers start after all init containers, which without the sidecar must not be redirected to it: so that is done last.
  // Native sidecars start in their place, and then serve the other init containers too.
  const initContainers = config.native ? [...redirect, ...pair, ...inits] : [...inits, ...redirect];
  const status: InjectionStatus = {
    container: config.container,
    native: config.native,
    image: config.image,
    emptyImage: config.emptyImage,
    template: createHash('sha256')
      .update(JSON.stringify([pair, redirect, volumes]))
      .digest('hex')
      .slice(0, 12),
  };
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      annotations: {
        // `kubectl logs` and `exec` mean the app, as they did before.
        ...(containers[0] && { [DEFAULT_CONTAINER]: containers[0].name }),
        ...pod.metadata?.annotations,
        [STATUS]: JSON.stringify(status),
      },
    },
    spec: {
      ...spec,
      volumes: [...(spec.volumes ?? []), ...volumes],
      ...(initContainers.length > 0 && { initContainers }),
      // Before the app: the kubelet starts the next one when postStart has returned, so when Envoy serves.
      containers: config.native ? containers : [...pair, ...containers],
    },
  };
}

/** NAME-1 with the sidecar and NAME-2 with the Empty image, otherwise the same but for the slot. */
export function sidecarPair(config: Injection, graceSeconds: number): V1Container[] {
  const { env = [], ...rest } = sidecar(config, graceSeconds);
  return pairNames(config.container).map((name, i) => ({
    name,
    image: i === 0 ? config.image : config.emptyImage,
    ...rest,
    env: [{ name: 'SLUICE_SLOT', value: String(i + 1) }, ...env],
    ...(config.native && { restartPolicy: 'Always' }),
  }));
}

export const pairNames = (container: string): string[] => [`${container}-1`, `${container}-2`];

/** Why no sidecar can work in this Pod. */
function unfitness({ metadata, spec }: V1Pod): string | undefined {
  if (spec?.hostNetwork) return 'hostNetwork: its traffic is that of the whole node';
  if (spec?.os?.name === 'windows') return 'os: windows: there is neither Envoy’s hot restart nor iptables';
  if (metadata?.annotations?.[MIRROR] !== undefined) return 'a static Pod: the API server has but a copy of it';
  return undefined;
}

/** What of the user's stands where something of ours would. */
function clashOf({ metadata, spec }: V1Pod, config: Injection): string | undefined {
  const all = [...(spec?.containers ?? []), ...(spec?.initContainers ?? [])];
  if (metadata?.annotations?.[STATUS] !== undefined)
    return `annotation ${STATUS} without the containers that it speaks of`;
  const names = [...pairNames(config.container), REDIRECT_NAME];
  const name = all.find((container) => names.includes(container.name))?.name;
  if (name !== undefined) return `container ${name} has a name of the sidecar's; is it OpenKruise's?`;
  const volumes = sidecarVolumes(config).map((volume) => volume.name);
  const volume = spec?.volumes?.find((one) => volumes.includes(one.name))?.name;
  if (volume !== undefined) return `volume ${volume} has a name of the sidecar's`;
  const ports: readonly number[] = Object.values(PORTS);
  for (const { name, ports: open = [] } of all) {
    const port = open.find(
      ({ containerPort, protocol = 'TCP' }) => protocol === 'TCP' && ports.includes(containerPort),
    );
    if (port !== undefined) return `container ${name} has port ${port.containerPort}, which is the sidecar's`;
  }
  return undefined;
}

function warningsOf({ spec }: V1Pod, config: Injection, unknown: readonly string[]): string[] {
  const warnings = unknown.map((key) => `annotation ${key} is not known`);
  if (!config.native && spec?.restartPolicy !== undefined && spec.restartPolicy !== 'Always') {
    warnings.push(
      `restartPolicy ${spec.restartPolicy}: the Pod never completes beside the sidecar; sluice.dev/native-sidecar: "true" lets it`,
    );
  }
  const user = spec?.securityContext?.runAsUser;
  const bypass = spec?.containers.find((one) => (one.securityContext?.runAsUser ?? user) === SIDECAR_USER);
  if (bypass !== undefined && config.interception.mode === 'REDIRECT') {
    warnings.push(`container ${bypass.name} runs as user ${SIDECAR_USER}: what it sends is not redirected`);
  }
  return warnings.map((text) => `sluice: ${text}`);
}

const skip = (why: string, warnings: string[] = []): Injected => ({ type: 'skipped', why, warnings });
