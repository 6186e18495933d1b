import { buildTools, missingTools } from './tools.ts';

/**
 * Vitest calls it once before the tests on Kubernetes: what is not in the cache is built, unless SLUICE_K8S_BUILD is `no`.
 * Without Go it says so, and the tests that need it are skipped.
 */
export async function setup(): Promise<void> {
  const say = (line: string) => console.error(`k8s: ${line}`);
  const missing = await (process.env.SLUICE_K8S_BUILD === 'no' ? missingTools() : buildTools(say));
  if (missing !== undefined) say(`some tests are skipped: ${missing}`);
}
