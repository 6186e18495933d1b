import { readFileSync, statSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';

const MAX_BYTES = 4 * 1024 * 1024;

/** A small text file. Throws CONFIG_INVALID naming it. */
export function readText(path: string, what: string): string {
  try {
    const { size } = statSync(path);
    if (size > MAX_BYTES) throw new Error(`${size} bytes`);
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SluiceError('CONFIG_INVALID', `${what}: expected a readable file, found: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** A YAML or JSON file that holds one object. Throws CONFIG_INVALID with the line of a mistake. */
export async function readObject(path: string, what: string): Promise<Record<string, unknown>> {
  const text = readText(path, what);
  let value: unknown;
  try {
    value = parseJson(text) ?? (await import('yaml')).parse(text) ?? {};
  } catch (cause) {
    const [first] = (cause as Error).message.split('\n', 1);
    throw new SluiceError('CONFIG_INVALID', `${what}: ${path}: ${first}`, { cause });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new SluiceError('CONFIG_INVALID', `${what}: ${path}: expected an object, found another value`);
}

/** Undefined for what is no JSON. Tried first: the YAML library costs a resident process some 10 MB, JSON nothing. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
