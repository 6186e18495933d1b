import { installNodePackages, missingNodePackages } from '../k8s/debian.ts';
import { buildTools, K8S_TOOLS, missingTools } from '../k8s/tools.ts';

/**
 * Vitest calls it once before the tests of deploy/: helm, and the parts of Kubernetes as for the project k8s. SLUICE_K8S_BUILD=no
 * builds and installs nothing; what is missing is said, and the tests that need it are skipped.
 */
export async function setup(): Promise<void> {
  const say = (line: string) => console.error(`deploy: ${line}`);
  const build = process.env.SLUICE_K8S_BUILD !== 'no';
  const tools = [...K8S_TOOLS, 'helm'] as const;
  for (const missing of [
    await (build ? buildTools(say, tools) : missingTools(tools)),
    await (build ? installNodePackages() : missingNodePackages()),
  ]) {
    if (missing !== undefined) say(`some tests are skipped: ${missing}`);
  }
}
