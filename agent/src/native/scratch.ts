import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A new folder for what is thrown away at once: in the system's own place, or, where that can not be written (a container
 * with a read-only root), in `otherwise`. Throws what the last one of them said.
 */
export function scratchFolder(name: string, otherwise: string): string {
  try {
    return mkdtempSync(join(tmpdir(), `sluice-${name}-`));
  } catch {
    return mkdtempSync(join(otherwise, `.${name}-`));
  }
}
