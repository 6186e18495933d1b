import { statSync } from 'node:fs';
import { type ProbeResult, probe } from '../broker/index.ts';

const known = new Map<string, Promise<ProbeResult>>();

/** `probe`, once for each binary: it reads the whole file. Another file under the same path is probed anew. */
export async function probeOnce(binary: string): Promise<ProbeResult> {
  const key = fileKey(binary);
  if (key === undefined) return probe(binary); // which says what is wrong with it
  const asked = known.get(key) ?? probe(binary);
  known.set(key, asked);
  asked.catch(() => known.delete(key));
  return asked;
}

function fileKey(path: string): string | undefined {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${path} ${ino} ${mtimeMs} ${size}`;
  } catch {
    return undefined;
  }
}
