import { installNodePackages, missingNodePackages } from './debian.ts';
import { buildTools, missingTools } from './tools.ts';

/**
 * Vitest calls it once before the tests on Kubernetes: what is not in the cache is built, and Debian's packages of a node are
 * installed, unless SLUICE_K8S_BUILD is `no`. What can not be had is said, and the tests that need it are skipped.
 */
export async function setup(): Promise<void> {
  const say = (line: string) => console.error(`k8s: ${line}`);
  const build = process.env.SLUICE_K8S_BUILD !== 'no';
  for (const missing of [
    await (build ? buildTools(say) : missingTools()),
    await (build ? installNodePackages() : missingNodePackages()),
  ]) {
    if (missing !== undefined) say(`some tests are skipped: ${missing}`);
  }
}
