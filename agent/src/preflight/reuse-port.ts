import { readFileSync } from 'node:fs';
import type { CheckResult } from '@sluice/contract';
import { adminAddressOf } from '../epochs/bootstrap.ts';
import { close, hasReusePort, pidfdGetfd, pidfdOpen } from '../native/fds.ts';
import { type ListenFd, listenFds } from '../native/listeners.ts';
import { migratesRequests } from '../native/migrate-req.ts';
import { whyNotSteer } from '../native/reuseport-trial.ts';
import { udpListeners } from './bootstrap.ts';
import type { PreflightInput, Serving } from './index.ts';
import { failed, passed } from './result.ts';

type Subject = PreflightInput & { readonly serving: Serving };

/** What the kernel of this network can do. */
export interface KernelReader {
  readonly migratesRequests: () => boolean | undefined;
  readonly whyNotSteer: () => Promise<string | undefined>;
}

const KERNEL: KernelReader = { migratesRequests, whyNotSteer };

/** Two Envoys can listen on the same addresses side by side, and new connections can be steered from one to the other. */
export async function reusePortChecks(subject: Subject, kernel = KERNEL): Promise<CheckResult[]> {
  const shared = [owner(subject), listeners(subject), quic(subject), admin(subject)];
  return [...shared, await steering(subject, kernel), migration(kernel)];
}

/** Whose packet one is, the two Envoys know only when one is the other's hot restart parent. */
function quic(subject: Subject): CheckResult {
  const name = 'no QUIC';
  const names = udpListeners(subject.mergedBootstrap).map((one) => `listener ${String(one.name ?? 'unnamed')}`);
  const found = [...names, ...(subject.quic ? ['QUIC in the serving epoch'] : [])];
  return found.length === 0 ? passed(name, 'none') : failed(name, 'PREFLIGHT_UDP', found.join(', '));
}

/** The kernel shares an address among sockets of one user only. */
function owner({ serving }: Subject): CheckResult {
  const name = 'owner';
  const uid = Number(/^Uid:\s+\d+\s+(\d+)/m.exec(read(`/proc/${serving.pid}/status`))?.[1] ?? Number.NaN);
  const own = process.geteuid?.();
  if (uid === own) return passed(name, `user ${uid}, as this agent`);
  return failed(name, 'PREFLIGHT_OWNER', `serving Envoy of user ${uid}, agent of user ${own}`);
}

function listeners({ serving, mergedBootstrap }: Subject): CheckResult {
  const name = 'shared listeners';
  const wrong = [...ownSocketOnly(mergedBootstrap), ...unshared(serving)];
  return wrong.length === 0
    ? passed(name, 'every listener has an IP address with reuse_port')
    : failed(name, 'PREFLIGHT_LISTENER', [...new Set(wrong)].join(', '));
}

interface Listener {
  readonly name?: string;
  readonly enable_reuse_port?: unknown;
  readonly enableReusePort?: unknown;
}

/** Listeners of the new bootstrap that want their address for themselves. */
function ownSocketOnly(bootstrap: Record<string, unknown>): string[] {
  const resources = bootstrap.static_resources as { listeners?: Listener[] } | undefined;
  return (resources?.listeners ?? [])
    .filter((listener) => listener.enable_reuse_port === false || listener.enableReusePort === false)
    .map((listener) => `listener ${listener.name ?? 'unnamed'} (enable_reuse_port: false)`);
}

/** What the serving Envoy listens on that a second one can not have as well. */
function unshared(serving: Serving): string[] {
  const admin = serving.adminAddress.startsWith('/')
    ? `unix://${serving.adminAddress}`
    : `tcp://${serving.adminAddress}`;
  let sockets: ListenFd[];
  try {
    sockets = listenFds(serving.pid).filter(({ address }) => address !== admin);
  } catch {
    return []; // the check of the owner says it
  }
  const unix = sockets.filter(({ address }) => address.startsWith('unix://')).map(({ address }) => address);
  const exclusive = withDups(serving.pid, sockets, (fd, { address }) =>
    address.startsWith('tcp://') && !hasReusePort(fd) ? [`${address} (no reuse_port)`] : [],
  );
  return [...unix, ...(exclusive ?? [])];
}

function admin({ serving, mergedBootstrap, runFolder }: Subject): CheckResult {
  const name = 'admin address';
  const address = adminAddressOf(mergedBootstrap);
  // One in the run folder is ours, and another one for each epoch.
  if (address !== serving.adminAddress || address.startsWith(`${runFolder}/`))
    return passed(name, 'one for each epoch');
  return failed(name, 'PREFLIGHT_ADMIN', `${address} for both`);
}

async function steering({ serving }: Subject, reader: KernelReader): Promise<CheckResult> {
  const name = 'steering';
  const { why, migrates } = await steeringOf(serving.pid, reader);
  if (why === undefined) return passed(name, 'new connections can be steered to the new epoch');
  return migrates
    ? passed(name, `not possible (${why}), nor needed: the kernel migrates what waits`)
    : failed(name, 'PREFLIGHT_STEERING', why);
}

export interface Steering {
  /** Why new connections can not be steered; absent when they can. */
  readonly why?: string;
  /** net.ipv4.tcp_migrate_req is on: what waits in the queue of a closed socket moves on. */
  readonly migrates: boolean;
}

/** Tried on the kernel, and on the listen sockets of the process, of which a dup is taken and closed. */
export async function steeringOf(pid: number, kernel = KERNEL): Promise<Steering> {
  const migrates = kernel.migratesRequests() === true;
  const why = (await kernel.whyNotSteer()) ?? whyNoDups(pid);
  return { migrates, ...(why !== undefined && { why }) };
}

function whyNoDups(pid: number): string | undefined {
  try {
    return withDups(pid, listenFds(pid), () => []) === undefined
      ? 'no permission to take listen sockets of the serving Envoy (pidfd_getfd)'
      : undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Undefined where dups can not be had. */
function withDups(pid: number, sockets: readonly ListenFd[], use: (fd: number, socket: ListenFd) => string[]) {
  const pidfd = pidfdOpen(pid);
  if (pidfd === undefined) return undefined;
  try {
    return sockets.flatMap((socket) => {
      const fd = pidfdGetfd(pidfd, socket.fd);
      try {
        return use(fd, socket);
      } finally {
        close(fd);
      }
    });
  } catch {
    return undefined;
  } finally {
    close(pidfd);
  }
}

/** Said, whatever it is: it decides what a crash costs where hot restart is off (docs/measured.md). */
function migration(kernel: KernelReader): CheckResult {
  const name = 'net.ipv4.tcp_migrate_req';
  if (kernel.migratesRequests())
    return passed(name, '1: what waits in the queue of a closed socket moves to another one');
  return passed(
    name,
    '0: what waits in the queue of a closed socket is reset. A handover steers around that; after a crash without hot restart new connections come a second late',
  );
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
