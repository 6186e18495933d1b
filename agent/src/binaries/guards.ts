import { OWN_DRAIN_GUARDS, ownDrainGuards } from '@sluice/contract/presets/index';
import { carries } from './inside.ts';

/**
 * Which guards of its own drain this Envoy has. Of a version that nobody has looked at the binary itself is asked: it carries
 * the name of each guard that it asks for. Throws PREFLIGHT_BINARY when it can not be read.
 */
export async function guardsOf(binary: string, version: string): Promise<readonly string[]> {
  return ownDrainGuards(version) ?? (await carries(binary, OWN_DRAIN_GUARDS));
}
