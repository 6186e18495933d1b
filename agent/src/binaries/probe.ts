import { SluiceError } from '@sluice/contract';
import { judgeSchema, PROTO_FILE } from '../broker/schema.ts';
import { runAside } from './aside.ts';
import { inside } from './inside.ts';
import { oncePerBinary } from './once.ts';

const TIMEOUT_MS = 10_000;
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
 * binary is run only to print a line, and asked once. Throws PREFLIGHT_BINARY when it does not run.
 */
export const probe = oncePerBinary(async (binary: string): Promise<ProbeResult> => {
  const hotRestartVersion = await hotRestartVersionOf(binary);
  if (!KNOWN_HOT_RESTART_VERSIONS.includes(hotRestartVersion)) {
    const evidence = `hot restart version ${hotRestartVersion}; known: ${KNOWN_HOT_RESTART_VERSIONS.join(', ')}`;
    return { hotRestartVersion, wire: 'unknown', evidence };
  }
  const { descriptor } = await inside(binary);
  if (descriptor === undefined) {
    return { hotRestartVersion, wire: 'unknown', evidence: `the binary has no descriptor of ${PROTO_FILE}` };
  }
  const { ok, found } = judgeSchema(Buffer.from(descriptor));
  return { hotRestartVersion, wire: ok ? 'known' : 'unknown', evidence: `${PROTO_FILE} in the binary: ${found}` };
});

async function hotRestartVersionOf(binary: string): Promise<string> {
  try {
    const { stdout, stderr } = await runAside(binary, ['--hot-restart-version'], { timeoutMs: TIMEOUT_MS });
    // Envoy 1.36 to 1.40 print it to stderr.
    const version = (stdout || stderr).trim();
    if (/^[\w.]{1,32}$/.test(version)) return version;
    throw new Error(`it printed "${version.slice(0, 80)}"`);
  } catch (error) {
    const found = (error as Error).message;
    throw new SluiceError('PREFLIGHT_BINARY', `expected ${binary} to print its hot restart version, found: ${found}`, {
      cause: error,
    });
  }
}
