import { type CheckResult, toSluiceError } from '@sluice/contract';
import type { PreflightInput } from './index.ts';
import { failed, passed } from './result.ts';

/** The target runs. */
export async function binaryCheck({ binary, probe }: PreflightInput): Promise<CheckResult> {
  try {
    const { hotRestartVersion } = await probe(binary);
    return passed('binary', `${binary} runs, hot restart version ${hotRestartVersion}`);
  } catch (thrown) {
    return failed('binary', 'PREFLIGHT_BINARY', toSluiceError(thrown).message);
  }
}
