import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SluiceError } from '@sluice/contract';
import type { PresetEnvironment } from '@sluice/contract/presets/index';
import { wasmPath } from '@sluice/wasm-filter';
import { writeBootstrap } from '../epochs/bootstrap.ts';
import type { EpochFolder } from '../epochs/folder.ts';
import type { EpochPlan } from '../epochs/handover.ts';
import type { KeeperContext } from './context.ts';

const run = promisify(execFile);
const VERSION_TIMEOUT_MS = 10_000;

/** `1.40.0` of `envoy --version`, whose line is `.../envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`. */
export async function binaryVersion(binary: string): Promise<string> {
  try {
    const { stdout } = await run(binary, ['--version'], { timeout: VERSION_TIMEOUT_MS });
    const version = /version: [0-9a-f]+\/([^/]+)\//.exec(stdout)?.[1];
    if (version !== undefined) return version;
    throw new Error(`found ${JSON.stringify(stdout.trim().slice(0, 200))}`);
  } catch (cause) {
    throw new SluiceError('PREFLIGHT_BINARY', `expected ${binary} to tell its version: ${(cause as Error).message}`, {
      cause,
    });
  }
}

export function agentSocket(dir: string): string {
  return join(dir, 'agent.sock');
}

export function presetEnvironment(context: Pick<KeeperContext, 'config'>, folder: EpochFolder): PresetEnvironment {
  const { config } = context;
  return {
    proxy: config.proxy,
    epoch: folder.epoch,
    slot: config.slot,
    wasmPath: wasmPath(),
    pressureFile: folder.pressure,
    adminPipe: folder.admin,
    agentSocket: agentSocket(config.dir),
    ...(config.xds && { controller: config.xds }),
  };
}

export interface PlanInput {
  readonly binary: string;
  readonly bootstrap: string;
  readonly concurrency: number;
  readonly restartEpoch: number;
  readonly upgradeId?: string;
}

/** Makes the folder and the merged bootstrap of a new epoch. Throws CONFIG_INVALID or PREFLIGHT_BINARY; nothing runs yet. */
export async function planEpoch(context: KeeperContext, input: PlanInput): Promise<EpochPlan> {
  const version = await binaryVersion(input.binary);
  const folder = context.registry.create();
  const { warnings, adminAddress } = writeBootstrap(folder, input.bootstrap, presetEnvironment(context, folder));
  for (const warning of warnings) context.log('warn', 'bootstrap preset', { epoch: folder.epoch, warning });
  return { ...input, version, folder, baseId: context.config.baseId, adminAddress };
}
