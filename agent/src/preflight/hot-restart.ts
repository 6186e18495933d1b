import { accessSync, constants } from 'node:fs';
import { type CheckResult, toSluiceError } from '@sluice/contract';
import { readInitializingFlag, sharedMemoryExists, sharedMemoryPath } from '../broker/index.ts';
import type { PreflightInput, Serving } from './index.ts';
import { failed, passed } from './result.ts';

/** Both Envoys speak the same hot restart protocol, one that the broker knows, and share the memory that it needs. */
export async function hotRestartChecks(input: PreflightInput & { readonly serving: Serving }): Promise<CheckResult[]> {
  const on = switchedOn(input);
  return on.ok ? [on, ...(await protocol(input)), sharedMemory(input.serving)] : [on];
}

function switchedOn({ hotRestart, serving }: PreflightInput): CheckResult {
  const name = 'hot restart';
  if (!hotRestart) return failed(name, 'PREFLIGHT_HOT_RESTART_OFF', 'switched off in the configuration of this agent');
  if (serving?.hotRestart === false) {
    return failed(name, 'PREFLIGHT_HOT_RESTART_OFF', 'the serving epoch was started without it');
  }
  return passed(name, 'switched on');
}

async function protocol({ binary, serving, probe }: PreflightInput & { readonly serving: Serving }) {
  let target: Awaited<ReturnType<typeof probe>>;
  try {
    target = await probe(binary);
  } catch (thrown) {
    return [failed('wire protocol', 'PREFLIGHT_WIRE', toSluiceError(thrown).message)];
  }
  const wire =
    target.wire === 'known'
      ? passed('wire protocol', target.evidence)
      : failed('wire protocol', 'PREFLIGHT_WIRE', target.evidence);
  return [wire, version(target.hotRestartVersion, await probe(serving.binary).catch(() => undefined), serving)];
}

function version(target: string, from: { hotRestartVersion: string } | undefined, serving: Serving): CheckResult {
  const name = 'hot restart version';
  if (from === undefined) {
    // The file was replaced or removed under the running Envoy. Its own word can not be had any more.
    const found = `the serving binary ${serving.binary} does not run any more`;
    return failed(name, 'PREFLIGHT_HOT_RESTART_VERSION', found);
  }
  if (from.hotRestartVersion === target) return passed(name, target);
  return failed(name, 'PREFLIGHT_HOT_RESTART_VERSION', `serving ${from.hotRestartVersion}, target ${target}`);
}

function sharedMemory({ baseId }: Serving): CheckResult {
  const name = 'shared memory';
  try {
    if (!sharedMemoryExists(baseId)) {
      return failed(
        name,
        'PREFLIGHT_SHARED_MEMORY',
        `${sharedMemoryPath(baseId)} is not there; is /dev/shm shared with the serving Envoy?`,
      );
    }
    accessSync(sharedMemoryPath(baseId), constants.R_OK | constants.W_OK);
    const stale = readInitializingFlag(baseId)
      ? ', with the flag of an epoch that died while initializing, which will be cleared'
      : '';
    return passed(name, `${sharedMemoryPath(baseId)}${stale}`);
  } catch (error) {
    return failed(name, 'PREFLIGHT_SHARED_MEMORY', (error as Error).message);
  }
}
