import { DRAIN_RESOURCE, type DrainOrder, needsMarks } from '@sluice/contract';
import { drainTypedConfig, LEAVE_RESOURCE, leaveTypedConfig } from '@sluice/contract/presets/index';
import { type EpochFolder, writeAtomically } from './folder.ts';

/** Content of the file that feeds a slot by `path_config_source`: its resource. Envoy wants exactly one in a file. */
export function orderFile(typedConfig: unknown, name: string = DRAIN_RESOURCE): string {
  const resource = {
    '@type': 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig',
    name,
    typed_config: typedConfig,
  };
  return JSON.stringify({ resources: [resource] });
}

/** Gives an order to an epoch with the filter whose slots are fed by files; nothing reads them where a controller does. */
export function writeOrder(folder: EpochFolder, order: DrainOrder, wasmPath: string, leave: boolean): void {
  // First what tells the marked ones to leave, so that it is there when the first is marked.
  if (leave && needsMarks(order.policy)) writeAtomically(folder.leave, orderFile(leaveTypedConfig(), LEAVE_RESOURCE));
  writeAtomically(folder.order, orderFile(drainTypedConfig(wasmPath, JSON.stringify(order))));
}
