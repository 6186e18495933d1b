import { hostname, networkInterfaces } from 'node:os';
import { SluiceError } from '@sluice/contract';

/** `kubernetes.replica` of the controller's configuration. */
export interface ReplicaConfig {
  /** Name of this replica; the Pod's without (POD_NAME, else the host's name). */
  readonly id?: string | undefined;
  /** Where the other replicas and the agents reach it; the Pod's address without (POD_IP, else the one that it listens on). */
  readonly host?: string | undefined;
  /** How long the others wait for a replica that is silent. */
  readonly leaseSeconds?: number | undefined;
}

export interface SelfOptions {
  readonly config: ReplicaConfig;
  /** Of the API, which the agents' links come to. */
  readonly apiHost: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Who this replica is. Throws CONFIG_INVALID for a name that no Lease can have. */
export function replicaId({ config, env }: Pick<SelfOptions, 'config' | 'env'>): string {
  const id = config.id ?? env.POD_NAME ?? hostname().toLowerCase();
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(id) || id.length > 230) {
    throw new SluiceError('CONFIG_INVALID', `kubernetes.replica.id: expected a DNS name, found ${JSON.stringify(id)}`);
  }
  return id;
}

/** Addresses of this replica for others: a wildcard is nobody's address. */
export function replicaAddresses({ config, apiHost, env }: SelfOptions) {
  const host = config.host ?? env.POD_IP ?? (isWildcard(apiHost) ? ownAddress() : apiHost);
  const bracketed = host.includes(':') ? `[${host}]` : host;
  return (apiPort: number, xdsPort: number) => ({
    api: `http://${bracketed}:${apiPort}`,
    xds: `${bracketed}:${xdsPort}`,
  });
}

function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::';
}

function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  return all.find(({ internal, family }) => !internal && family === 'IPv4')?.address ?? '127.0.0.1';
}
