import { type FSWatcher, watch } from 'node:fs';
import { join } from 'node:path';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { type LoadCache, listFolder, loadResources } from './load.ts';
import type { ResourceSet } from './types.ts';

export interface WatchOptions {
  readonly signal: AbortSignal;
  /** Each good read whose content differs from the last. */
  onSet(set: ResourceSet): void;
  /** The folder was refused: the last good set is still the one. */
  onError(error: SluiceError): void;
  /** Changes are gathered for this long, milliseconds. */
  readonly debounceMs?: number;
}

const DEBOUNCE_MS = 50;
const RETRY_MS = { first: 200, most: 5_000 };

/**
 * Reads the folder and reads it again on each change. When the folder can not be watched or read (it is gone, or being
 * replaced), it is tried again with a growing pause. Resolves when the first good set was given; throws what made the
 * first read fail.
 */
export async function watchResources(dir: string, options: WatchOptions): Promise<void> {
  const { signal } = options;
  const cache: LoadCache = new Map();
  const watchers = new Map<string, FSWatcher>();
  let timer: NodeJS.Timeout | undefined;
  let reading = false;
  let again = false;
  let retryMs = RETRY_MS.first;
  let last = '';

  const stop = (): void => {
    clearTimeout(timer);
    for (const watcher of watchers.values()) watcher.close();
    watchers.clear();
  };
  const schedule = (ms: number): void => {
    if (signal.aborted) return;
    clearTimeout(timer);
    timer = setTimeout(() => void reload(), ms).unref();
  };
  const changed = (): void => schedule(options.debounceMs ?? DEBOUNCE_MS);

  /** Watches first and reads after, so that a change in between is seen as one of the two. */
  async function rewatch(): Promise<void> {
    const entries = await listFolder(dir);
    const folders = entries.filter((entry) => entry.isDirectory());
    const wanted = new Set([dir, ...folders.map((entry) => join(dir, entry.name))]);
    for (const [path, watcher] of watchers) {
      if (wanted.has(path)) continue;
      watcher.close();
      watchers.delete(path);
    }
    for (const path of wanted) {
      if (signal.aborted || watchers.has(path)) continue;
      const watcher = watch(path, { persistent: false }, changed);
      watcher.on('error', () => drop(path));
      watchers.set(path, watcher);
    }
  }
  function drop(path: string): void {
    watchers.get(path)?.close();
    watchers.delete(path);
    changed();
  }

  async function read(): Promise<void> {
    await rewatch();
    const set = await loadResources(dir, cache);
    const text = [...cache].map(([path, file]) => `${path}\0${file.text}\0`).join('');
    if (signal.aborted || text === last) return;
    last = text;
    options.onSet(set);
  }

  async function reload(): Promise<void> {
    if (reading) {
      again = true;
      return;
    }
    reading = true;
    try {
      await read();
      retryMs = RETRY_MS.first;
    } catch (error) {
      if (signal.aborted) return;
      options.onError(toSluiceError(error));
      // A bad file is put right by a change, which is an event. A folder that went away takes its events along.
      if (!(error instanceof SluiceError && error.code === 'RESOURCE_INVALID')) {
        for (const path of [...watchers.keys()]) {
          watchers.get(path)?.close();
          watchers.delete(path);
        }
        schedule(retryMs);
        retryMs = Math.min(retryMs * 2, RETRY_MS.most);
      }
    } finally {
      reading = false;
      if (again) {
        again = false;
        changed();
      }
    }
  }

  signal.throwIfAborted();
  signal.addEventListener('abort', stop, { once: true });
  try {
    reading = true;
    await read();
  } catch (error) {
    stop();
    throw error;
  } finally {
    reading = false;
    if (again) changed();
  }
}
