import { type CheckResult, toSluiceError } from '@sluice/contract';
import type { PreflightInput } from './index.ts';
import { failed, passed } from './result.ts';

/** The target runs, and it and the serving Envoy speak the same hot restart protocol, one that the broker knows. */
export async function binaryChecks({ binary, serving, probe }: PreflightInput): Promise<CheckResult[]> {
  let target: Awaited<ReturnType<typeof probe>>;
  try {
    target = await probe(binary);
  } catch (thrown) {
    return [failed('binary', 'PREFLIGHT_BINARY', toSluiceError(thrown).message)];
  }
  const checks = [passed('binary', `${binary} runs, hot restart version ${target.hotRestartVersion}`)];
  checks.push(
    target.wire === 'known'
      ? passed('wire protocol', target.evidence)
      : failed('wire protocol', 'PREFLIGHT_WIRE', target.evidence),
  );
  if (!serving) return checks;
  const from = await probe(serving.binary).catch(() => undefined);
  if (from === undefined) {
    // The file was replaced or removed under the running Envoy. Its own word can not be had any more.
    checks.push(
      failed(
        'hot restart version',
        'PREFLIGHT_HOT_RESTART_VERSION',
        `the serving binary ${serving.binary} does not run any more`,
      ),
    );
  } else if (from.hotRestartVersion !== target.hotRestartVersion) {
    const found = `serving ${from.hotRestartVersion}, target ${target.hotRestartVersion}`;
    checks.push(failed('hot restart version', 'PREFLIGHT_HOT_RESTART_VERSION', found));
  } else {
    checks.push(passed('hot restart version', target.hotRestartVersion));
  }
  return checks;
}
