import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { CATALOGUE, type ErrorCode, SluiceError } from '@sluice/contract';
import { entryPoint } from '../entry-point.ts';
import { envoyOf, metaOf } from '../epochs/handover.ts';
import { identify, isAlive } from '../epochs/proc.ts';
import { EpochRegistry } from '../epochs/registry.ts';
import { createContext } from '../keeper/assemble.ts';
import { type KeeperConfig, type ResolvedConfig, resolveBinary, resolveConfig } from '../keeper/config.ts';
import { firstLine, planEpoch } from '../keeper/plan.ts';
import { makeFifo } from '../native/fds.ts';
import { becomeEnvoy } from './become.ts';
import type { ToFront, ToHelper } from './messages.ts';

/**
 * The transient front end: prepares, then becomes Envoy by execve. Between upgrades nothing of Sluice is resident.
 *
 *   nothing serves here   prepare ---------------------------------> execve: the first epoch
 *   an epoch serves       start the helper -> it checks, binds the broker's names, says "become" -> execve: the new epoch
 *                         the helper stays: broker, drain, verdict, reset of the old epoch, end
 *   ... and fails         "failed": this process ends with the helper's error, the old epoch serves
 *
 * What the two front ends share lies in the run folder, so that a keeper can take over from a transient agent and the
 * other way round. The price of having nobody resident: a crash of the serving Envoy refuses connections until whoever
 * started this process starts it again.
 */
export async function becomeEpoch(given: KeeperConfig): Promise<never> {
  const config = resolveConfig(given);
  mkdirSync(config.dir, { recursive: true, mode: 0o700 });
  const registry = new EpochRegistry(config.dir, config.shared);
  const alive = registry.folders().flatMap((folder) => {
    const meta = folder.readMeta();
    return meta && meta.state !== 'ended' && isAlive(meta) ? [meta] : [];
  });
  const upgrade = alive.some(({ state }) => state === 'serving' || state === 'starting');
  // Old epochs may still drain after the serving one has gone: somebody has to judge and end them.
  const helper = alive.length > 0 ? startHelper(given, upgrade) : undefined;
  if (upgrade) return becomeAsTold(config, helper as ChildProcess);
  return becomeFirst(config);
}

async function becomeFirst(config: ResolvedConfig): Promise<never> {
  const { log } = config;
  const { context } = createContext(config, { signal: new AbortController().signal });
  const plan = await planEpoch(context, {
    binary: resolveBinary(config.envoy, config.envoys),
    bootstrap: config.bootstrap,
    concurrency: config.concurrency,
    line: () => firstLine(context),
  });
  makeFifo(plan.folder.alive);
  const self = identify(process.pid);
  if (self === undefined) throw new SluiceError('INTERNAL', `expected /proc/${process.pid}/stat, found none`);
  // Nobody will be here to say later that it serves: the state is what it is to become, its life tells whether it did.
  plan.folder.writeMeta({ ...metaOf(plan, self, { kind: 'none' }), state: 'serving', servingSince: Date.now() });
  log('info', 'becoming Envoy', { epoch: plan.folder.epoch, version: plan.version });
  return becomeEnvoy(envoyOf(plan));
}

/** Detached: a signal to this process's group must not end the broker in a handover. */
function startHelper(given: KeeperConfig, upgrade: boolean): ChildProcess {
  const main = entryPoint(import.meta, 'helper-main');
  const helper = spawn(process.execPath, [...process.execArgv, main], {
    detached: true,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const { log: _, ...config } = given;
  helper.stdin?.on('error', () => {}); // its end is told by `exit`
  tell(helper, { type: 'begin', config, upgrade });
  return helper;
}

async function becomeAsTold(config: ResolvedConfig, helper: ChildProcess): Promise<never> {
  const told = await Promise.race([firstMessage(helper), ended(helper, config.startTimeoutMs)]);
  if (told.type === 'failed') {
    const code = (told.code in CATALOGUE ? told.code : 'INTERNAL') as ErrorCode;
    throw new SluiceError(code, told.message, { hint: told.hint });
  }
  config.log('info', 'becoming Envoy', { cwd: told.envoy.cwd });
  try {
    return becomeEnvoy(told.envoy);
  } catch (error) {
    tell(helper, { type: 'failed', message: (error as Error).message });
    throw error;
  }
}

function tell(helper: ChildProcess, message: ToHelper): void {
  helper.stdin?.write(`${JSON.stringify(message)}\n`);
}

async function firstMessage(helper: ChildProcess): Promise<ToFront> {
  const lines = createInterface({ input: helper.stdout as NodeJS.ReadableStream });
  const [line] = (await once(lines, 'line')) as [string];
  return JSON.parse(line) as ToFront;
}

async function ended(helper: ChildProcess, timeoutMs: number): Promise<never> {
  try {
    await once(helper, 'close', { signal: AbortSignal.timeout(timeoutMs) });
  } catch {
    helper.kill('SIGTERM');
    throw new SluiceError('EPOCH_TIMEOUT', `expected the helper to be ready within ${timeoutMs} ms, found it is not`);
  }
  throw new SluiceError('EPOCH_DIED', `expected a word of the helper, found it ended with ${helper.exitCode}`);
}
