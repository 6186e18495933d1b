import { execFile } from 'node:child_process';
import { type FileHandle, open } from 'node:fs/promises';
import { promisify } from 'node:util';
import { SluiceError } from '@sluice/contract';
import { cutDescriptor, judgeSchema, PROTO_FILE } from './schema.ts';

const TIMEOUT_MS = 3_000;
const CHUNK = 4 * 1024 * 1024;
/** The descriptor is some 2.5 kB. */
const DESCRIPTOR_MAX = 64 * 1024;
/** Versions of the hot restart protocol that the broker was run with. */
export const KNOWN_HOT_RESTART_VERSIONS: readonly string[] = ['11.104'];

export interface ProbeResult {
  /** As `envoy --hot-restart-version` says: `11.104`. Two Envoys can hot restart into each other when it is the same. */
  readonly hotRestartVersion: string;
  /** `known`: the broker may stand between this Envoy and another one. */
  readonly wire: 'known' | 'unknown';
  /** What that stands on, for a person. */
  readonly evidence: string;
}

/**
 * What an Envoy binary speaks: its own word for the version, and the schema of the protocol found inside the binary. The
 * binary is run only to print a line. Throws PREFLIGHT_BINARY when it does not run.
 */
export async function probe(binary: string, signal?: AbortSignal): Promise<ProbeResult> {
  const hotRestartVersion = await hotRestartVersionOf(binary, signal);
  if (!KNOWN_HOT_RESTART_VERSIONS.includes(hotRestartVersion)) {
    const evidence = `hot restart version ${hotRestartVersion}; known: ${KNOWN_HOT_RESTART_VERSIONS.join(', ')}`;
    return { hotRestartVersion, wire: 'unknown', evidence };
  }
  const descriptor = await findDescriptor(binary, signal);
  if (descriptor === undefined) {
    return { hotRestartVersion, wire: 'unknown', evidence: `the binary has no descriptor of ${PROTO_FILE}` };
  }
  const { ok, found } = judgeSchema(descriptor);
  return { hotRestartVersion, wire: ok ? 'known' : 'unknown', evidence: `${PROTO_FILE} in the binary: ${found}` };
}

async function hotRestartVersionOf(binary: string, signal?: AbortSignal): Promise<string> {
  try {
    const options = { timeout: TIMEOUT_MS, ...(signal && { signal }) };
    const { stdout, stderr } = await promisify(execFile)(binary, ['--hot-restart-version'], options);
    // Envoy 1.36 to 1.40 print it to stderr.
    const version = (stdout || stderr).trim();
    if (/^[\w.]{1,32}$/.test(version)) return version;
    throw new Error(`it printed "${version.slice(0, 80)}"`);
  } catch (error) {
    signal?.throwIfAborted();
    const found = (error as Error).message;
    throw new SluiceError('PREFLIGHT_BINARY', `expected ${binary} to print its hot restart version, found: ${found}`, {
      cause: error,
    });
  }
}

/** Reads the file in chunks: nothing near its 100 MB is ever held. */
async function findDescriptor(path: string, signal?: AbortSignal): Promise<Buffer | undefined> {
  // Field 1 of FileDescriptorProto, its length, the name.
  const head = Buffer.concat([Buffer.from([0x0a, PROTO_FILE.length]), Buffer.from(PROTO_FILE)]);
  const file = await open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(CHUNK);
    for (let at = 0; ; at += CHUNK - head.length) {
      signal?.throwIfAborted();
      const { bytesRead } = await file.read(chunk, 0, CHUNK, at);
      for (let i = chunk.indexOf(head); i >= 0 && i < bytesRead; i = chunk.indexOf(head, i + 1)) {
        const descriptor = await descriptorAt(file, at + i);
        // Its name alone may also be the end of another descriptor's list of dependencies.
        if (descriptor.length > 2 * head.length) return descriptor;
      }
      if (bytesRead < CHUNK) return undefined;
    }
  } finally {
    await file.close();
  }
}

async function descriptorAt(file: FileHandle, at: number): Promise<Buffer> {
  const bytes = Buffer.alloc(DESCRIPTOR_MAX);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, at);
  return cutDescriptor(bytes.subarray(0, bytesRead));
}
