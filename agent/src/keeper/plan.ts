import { join } from 'node:path';
import type { MethodName } from '@sluice/contract';
import {
  LEAVE_RESOURCE,
  noOpTypedConfig,
  type PresetEnvironment,
  withBootstrapPresets,
} from '@sluice/contract/presets/index';
import { wasmPath } from '@sluice/wasm-filter';
import { guardsOf } from '../binaries/guards.ts';
import { supportsLeave } from '../binaries/leave-support.ts';
import { binaryVersion } from '../binaries/version.ts';
import { supportsWasm } from '../binaries/wasm-support.ts';
import { readBootstrap, writeBootstrap } from '../epochs/bootstrap.ts';
import { EpochFolder, writeAtomically } from '../epochs/folder.ts';
import type { EpochPlan } from '../epochs/handover.ts';
import { orderFile } from '../epochs/order-file.ts';
import type { KeeperContext } from './context.ts';

export function agentSocket(dir: string): string {
  return join(dir, 'agent.sock');
}

export interface PresetSubject {
  readonly folder: EpochFolder;
  /** Which guards of its own drain it has. */
  readonly guards: readonly string[];
  readonly wasm: boolean;
  /** Its Lua can tell a single connection to leave. */
  readonly leave: boolean;
}

export function presetEnvironment(context: Pick<KeeperContext, 'config'>, subject: PresetSubject): PresetEnvironment {
  const { config } = context;
  const { folder } = subject;
  return {
    proxy: config.proxy,
    epoch: folder.epoch,
    slot: config.slot,
    guards: subject.guards,
    ...(subject.wasm && { wasmPath: wasmPath() }),
    leave: subject.leave,
    orderFile: folder.order,
    leaveFile: folder.leave,
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
  readonly upgradeId?: string;
  readonly method?: MethodName;
  /** Decided once the epoch has its number. */
  readonly line: (epoch: number) => Pick<EpochPlan, 'baseId' | 'restartEpoch' | 'hotRestart'>;
}

/** Makes the folder and the merged bootstrap of a new epoch. Throws CONFIG_INVALID or PREFLIGHT_BINARY; nothing runs yet. */
export async function planEpoch(context: KeeperContext, { line, ...input }: PlanInput): Promise<EpochPlan> {
  const version = await binaryVersion(input.binary);
  const wasm = await supportsWasm(input.binary, wasmPath(), context.config.dir);
  const leave = wasm && (await supportsLeave(input.binary));
  const guards = await guardsOf(input.binary, version);
  if (!wasm) context.log('warn', 'this Envoy can not run the filter; admin and kernel judge its drain', { version });
  const folder = context.registry.create();
  writeAtomically(folder.order, orderFile(noOpTypedConfig()));
  writeAtomically(folder.leave, orderFile(noOpTypedConfig(), LEAVE_RESOURCE));
  const { warnings, adminAddress, cutoff } = writeBootstrap(
    folder,
    input.bootstrap,
    presetEnvironment(context, { folder, guards, wasm, leave }),
  );
  for (const warning of warnings) context.log('warn', 'bootstrap preset', { epoch: folder.epoch, warning });
  const { drainTimeS } = context.config;
  return { ...input, drainTimeS, ...line(folder.epoch), version, wasm, leave, cutoff, folder, adminAddress };
}

/**
 * The bootstrap as a new epoch would get it, with another epoch's paths: for `--mode validate` alone, which watches the
 * pressure file, so that it has to be there. An agent that took over from the other slot never had an epoch 0.
 */
export async function mergeForCheck(
  context: KeeperContext,
  binary: string,
  version: string,
  source: string,
): Promise<Record<string, unknown>> {
  const wasm = await supportsWasm(binary, wasmPath(), context.config.dir);
  const leave = wasm && (await supportsLeave(binary));
  // One that can not be read is named by a check of its own.
  const guards = await guardsOf(binary, version).catch(() => []);
  const { registry } = context;
  const folder = registry.serving()?.folder ?? registry.folders().at(-1) ?? new EpochFolder(registry.root, 0);
  const environment = presetEnvironment(context, { folder, guards, wasm, leave });
  return withBootstrapPresets(readBootstrap(source), environment).value;
}

/** A start that takes over from nobody. */
export function firstLine({ config }: Pick<KeeperContext, 'config'>): ReturnType<PlanInput['line']> {
  return { baseId: config.baseId, restartEpoch: 0, hotRestart: config.hotRestart };
}
