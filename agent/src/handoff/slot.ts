import { readFileSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';

type Env = Readonly<Record<string, string | undefined>>;

/** A container of a hot upgrade is called NAME-1 or NAME-2 (OpenKruise's GetHotUpgradeContainerName). */
const NAME = /-([12])$/;
/**
 * The kubelet mounts the container's termination log from its own folder, `.../containers/NAME/ID`
 * (kubelet_pods.go, getPodContainerDir), and the kernel shows the source: the one place where a container can read its
 * name, for the downward API has no field for it, and a SidecarSet gives both containers the same environment.
 */
const KUBELET_MOUNT = /\/containers\/([a-z0-9][a-z0-9-]*)\/[0-9a-f]+$/;

export interface Place {
  readonly slot: string;
  /** Name of the container; absent outside of one. */
  readonly container?: string;
}

/**
 * Which of the two agents of a proxy this is: SLUICE_SLOT, else by the container's name in SLUICE_CONTAINER, else by the
 * name that the kubelet's mounts show, else `1`. Throws CONFIG_INVALID for a SLUICE_CONTAINER that is no NAME-1 or NAME-2.
 */
export function findPlace(env: Env = process.env, mounts: () => string = readMounts): Place {
  const given = env.SLUICE_CONTAINER;
  if (given !== undefined && given !== '' && !NAME.test(given) && !env.SLUICE_SLOT) {
    throw new SluiceError('CONFIG_INVALID', `expected SLUICE_CONTAINER to be NAME-1 or NAME-2, found ${given}`);
  }
  const container = given || containerName(mounts());
  const slot = env.SLUICE_SLOT || (container === undefined ? undefined : NAME.exec(container)?.[1]) || '1';
  return container === undefined ? { slot } : { slot, container };
}

/** Fields of /proc/PID/mountinfo: id, parent, device, root (the source within its file system), mount point, ... */
export function containerName(mounts: string): string | undefined {
  for (const line of mounts.split('\n')) {
    const name = KUBELET_MOUNT.exec(line.split(' ')[3] ?? '')?.[1];
    if (name !== undefined) return name;
  }
  return undefined;
}

function readMounts(): string {
  try {
    return readFileSync('/proc/self/mountinfo', 'utf8');
  } catch {
    return '';
  }
}
