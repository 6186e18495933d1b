import { createHash } from 'node:crypto';
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { dirname } from 'node:path';

/** Editors write in several steps, Kubernetes swaps a link: one change, once it is quiet. */
const QUIET_MS = 500;

/**
 * Calls `onChange` with the files whose content differs from before. Watches their folders, so that a replaced file or a
 * swapped link is seen; a file that is away for the moment is no change.
 */
export function watchFiles(files: readonly string[], onChange: (changed: string[]) => void): { close(): void } {
  const digests = new Map(files.map((file) => [file, digest(file)]));
  let timer: NodeJS.Timeout | undefined;
  const look = () => {
    const changed: string[] = [];
    for (const file of files) {
      const now = digest(file);
      if (now === undefined || now === digests.get(file)) continue;
      digests.set(file, now);
      changed.push(file);
    }
    if (changed.length > 0) onChange(changed);
  };
  const watchers: FSWatcher[] = [...new Set(files.map((file) => dirname(file)))].flatMap((folder) => {
    try {
      const watcher = watch(folder, { persistent: false }, () => {
        clearTimeout(timer);
        timer = setTimeout(look, QUIET_MS);
      });
      watcher.on('error', () => {});
      return [watcher];
    } catch {
      return [];
    }
  });
  return {
    close() {
      clearTimeout(timer);
      for (const watcher of watchers) watcher.close();
    },
  };
}

function digest(file: string): string | undefined {
  try {
    return createHash('sha256').update(readFileSync(file)).digest('hex');
  } catch {
    return undefined;
  }
}
