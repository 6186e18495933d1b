import { fileURLToPath } from 'node:url';

/**
 * Absolute path of the built filter. The same expression serves the sources and a published package: src/ and dist/ are
 * both siblings of build/.
 */
export function wasmPath(): string {
  return fileURLToPath(new URL('../build/sluice.wasm', import.meta.url));
}
