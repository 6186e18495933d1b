import { statSync } from 'node:fs';
import { open } from 'node:fs/promises';

const CHUNK = 4 * 1024 * 1024;
/** The name of the call in the binary's Lua extension: 1.37.0 and later have it, 1.36.4 and builds without Lua do not. */
const CALL = Buffer.from('drainConnectionUponCompletion');
const known = new Map<string, Promise<boolean>>();

/**
 * Whether this Envoy's Lua can tell one connection to leave. Looked for in the binary itself, once for each, so that no
 * version is guessed; a build without Lua would refuse every bootstrap that names it. Throws when it can not be read.
 */
export function supportsLeave(binary: string): Promise<boolean> {
  const { mtimeMs, size } = statSync(binary);
  const key = `${binary} ${mtimeMs} ${size}`;
  const asked = known.get(key) ?? contains(binary);
  known.set(key, asked);
  return asked;
}

/** Reads the file in chunks: nothing near its 100 MB is ever held. */
async function contains(path: string): Promise<boolean> {
  const file = await open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(CHUNK);
    for (let at = 0; ; at += CHUNK - CALL.length) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK, at);
      if (chunk.subarray(0, bytesRead).includes(CALL)) return true;
      if (bytesRead < CHUNK) return false;
    }
  } finally {
    await file.close();
  }
}
