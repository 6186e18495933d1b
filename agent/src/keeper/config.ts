import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { type DrainPolicy, type PolicyPatch, parsePolicy, SluiceError } from '@sluice/contract';
import type { Log } from '../log.ts';

export interface KeeperConfig {
  /** Name of the proxy; `node.id` of its Envoys. */
  readonly proxy: string;
  readonly slot?: string;
  /** Run folder of this slot: epochs, socket, state. */
  readonly dir: string;
  /** Folder shared with the agent of the other slot. */
  readonly shared?: string;
  /** Envoy to start with: a version below `envoys`, or a path. */
  readonly envoy: string;
  /** Folder with VERSION/envoy binaries. */
  readonly envoys?: string;
  /** The user's bootstrap, YAML or JSON. */
  readonly bootstrap: string;
  /** Controllers' API addresses, `http://host:port`; none = this agent decides alone. */
  readonly controllers?: readonly string[];
  /** The controller's xDS address as Envoy reaches it, `host:port`. */
  readonly xds?: string;
  readonly token?: string;
  /** What the controller is told of this machine, such as `zone`: rollouts select and spread by it. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Envoy's --base-id; one per slot pair of a machine. Default: derived from the run folder. */
  readonly baseId?: number;
  /** False: every Envoy is started with `--disable-hot-restart`, and upgrades take another method. Default: true. */
  readonly hotRestart?: boolean;
  /**
   * Envoy's --drain-time-s, as the user has it: how long connections of a listener live on that an LDS update replaces
   * while its epoch serves. Our drains do not use it; Envoy's own, which runs beside ours with QUIC, does. Default: Envoy's, 600.
   */
  readonly drainTimeS?: number;
  /** Worker threads, pinned for all epochs. Default: the number of cores. */
  readonly concurrency?: number;
  /** `host:port` of /livez, /readyz, /metrics; none = not served. */
  readonly statusAddress?: string;
  readonly policy?: PolicyPatch;
  /** Files besides the bootstrap (certificates) whose change is a reason for a hot restart. */
  readonly watch?: readonly string[];
  /** Longest time for a new epoch to serve. */
  readonly startTimeoutMs?: number;
  /** Longest drain on SIGTERM of what serves. Default: what the grace allows, else ten minutes. */
  readonly terminationDrainMs?: number;
  /**
   * terminationGracePeriodSeconds of the Pod, ms: all that comes between the preStop hook and SIGKILL. None: nobody kills
   * this agent by the clock.
   */
  readonly terminationGraceMs?: number;
  /** File for a last word, as the kubelet's terminationMessagePath. */
  readonly terminationLog?: string;
  /** How long an agent that is to take over waits for the peer. */
  readonly peerWaitMs?: number;
  /** Downward API file of the Pod's annotations, and the name of this container in them. */
  readonly podinfo?: { readonly file: string; readonly container: string };
  readonly log: Log;
}

type Optional = 'terminationGraceMs' | 'terminationLog' | 'podinfo';

export interface ResolvedConfig
  extends Required<Omit<KeeperConfig, 'shared' | 'envoys' | 'xds' | 'token' | 'statusAddress' | 'policy' | Optional>> {
  readonly shared?: string;
  readonly envoys?: string;
  readonly terminationGraceMs?: number;
  readonly terminationLog?: string;
  readonly podinfo?: NonNullable<KeeperConfig['podinfo']>;
  readonly xds?: { readonly address: string; readonly port: number };
  readonly token?: string;
  readonly statusAddress?: string;
  readonly policy: DrainPolicy;
}

export function resolveConfig(config: KeeperConfig): ResolvedConfig {
  if (!/^[A-Za-z0-9][A-Za-z0-9._~-]{0,252}$/.test(config.proxy)) {
    throw new SluiceError(
      'CONFIG_INVALID',
      `expected a proxy name of letters, digits and . _ ~ -, found ${JSON.stringify(config.proxy)}`,
    );
  }
  const dir = resolve(config.dir);
  const { shared, envoys, xds, token, statusAddress, ...rest } = config;
  return {
    ...rest,
    slot: config.slot ?? '1',
    dir,
    bootstrap: resolve(config.bootstrap),
    controllers: config.controllers ?? [],
    baseId: config.baseId ?? baseIdFor(shared === undefined ? dir : resolve(shared)),
    hotRestart: config.hotRestart ?? true,
    drainTimeS: wholeSeconds(config.drainTimeS ?? 600, 'drainTimeS'),
    concurrency: config.concurrency ?? availableParallelism(),
    policy: parsePolicy(config.policy ?? {}),
    labels: config.labels ?? {},
    watch: config.watch ?? [],
    startTimeoutMs: config.startTimeoutMs ?? 120_000,
    terminationDrainMs: config.terminationDrainMs ?? config.terminationGraceMs ?? 600_000,
    peerWaitMs: config.peerWaitMs ?? 30_000,
    ...(shared !== undefined && { shared: resolve(shared) }),
    ...(envoys !== undefined && { envoys: resolve(envoys) }),
    ...(xds !== undefined && { xds: parseHostPort(xds) }),
    ...(token !== undefined && { token }),
    ...(statusAddress !== undefined && { statusAddress }),
  };
}

function wholeSeconds(value: number, name: string): number {
  if (Number.isInteger(value) && value >= 1 && value <= 2_592_000) return value;
  throw new SluiceError('CONFIG_INVALID', `${name}: expected whole seconds from 1 to 2592000, found ${value}`);
}

export function parseHostPort(text: string): { address: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65_535)
    throw new SluiceError('CONFIG_INVALID', `expected host:port, found ${JSON.stringify(text)}`);
  return { address: (match[1] ?? match[2]) as string, port };
}

/** The same for the same folder, so that a successor finds the shared memory; far from the small ids people pick by hand. */
function baseIdFor(folder: string): number {
  let hash = 2_166_136_261;
  for (const byte of Buffer.from(folder)) hash = Math.imul(hash ^ byte, 16_777_619) >>> 0;
  return 100_000 + (hash % 100_000_000);
}

/** Of an epoch that begins a line of its own: nothing of the line before may be found under its id. */
export function derivedBaseId(baseId: number, epoch: number): number {
  return baseIdFor(`${baseId} ${epoch}`);
}

/** The binary that `to` names: a path, or a version below the folder of Envoys. Throws PREFLIGHT_BINARY. */
export function resolveBinary(to: string, envoys: string | undefined): string {
  const path = to.includes('/') ? resolve(to) : envoys === undefined ? undefined : join(envoys, to, 'envoy');
  if (path === undefined) {
    throw new SluiceError(
      'PREFLIGHT_BINARY',
      `expected the path of an Envoy, or a folder of versions (envoys), found only ${JSON.stringify(to)}`,
    );
  }
  try {
    accessSync(path, constants.X_OK);
  } catch (cause) {
    throw new SluiceError(
      'PREFLIGHT_BINARY',
      `expected an executable Envoy at ${path}, found ${existsSync(path) ? 'one that can not be executed' : 'none'}`,
      { cause },
    );
  }
  return path;
}

export function knownVersions(envoys: string | undefined): string[] {
  if (envoys === undefined) return [];
  try {
    return readdirSync(envoys).filter((name) => existsSync(join(envoys, name, 'envoy')));
  } catch {
    return [];
  }
}
