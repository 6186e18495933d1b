import { inside } from './inside.ts';

/**
 * Whether this Envoy's Lua can tell one connection to leave. Looked for in the binary itself, so that no version is
 * guessed; a build without Lua would refuse every bootstrap that names it. Throws PREFLIGHT_BINARY when it can not be read.
 */
export async function supportsLeave(binary: string): Promise<boolean> {
  return (await inside(binary)).leave;
}
