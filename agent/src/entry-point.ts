import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Path of a module beside the caller's that runs as a process or a thread of its own: a source among sources, else as built. */
export function entryPoint({ filename, url }: Pick<ImportMeta, 'filename' | 'url'>, name: string): string {
  return fileURLToPath(new URL(`./${name}${extname(filename)}`, url));
}
