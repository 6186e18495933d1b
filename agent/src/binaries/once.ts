import { statSync } from 'node:fs';

/**
 * Asks of each binary once; another file under the same path is asked anew, and so is one for which the answer was an
 * error.
 */
export function oncePerBinary<T, A extends unknown[]>(
  ask: (binary: string, ...rest: A) => Promise<T>,
): (binary: string, ...rest: A) => Promise<T> {
  const known = new Map<string, Promise<T>>();
  return async (binary, ...rest) => {
    const key = fileKey(binary);
    if (key === undefined) return ask(binary, ...rest); // which says what is wrong with it
    const asked = known.get(key) ?? ask(binary, ...rest);
    known.set(key, asked);
    asked.catch(() => known.delete(key));
    return asked;
  };
}

function fileKey(path: string): string | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${path} ${ino} ${mtimeMs} ${size}`;
  } catch {
    return undefined;
  }
}
