import { SluiceError } from '@sluice/contract';
import { runAside } from './aside.ts';
import { oncePerBinary } from './once.ts';

const TIMEOUT_MS = 10_000;

/**
 * `1.40.0` of `envoy --version`, whose line is `.../envoy  version: HASH/1.40.0/Clean/RELEASE/BoringSSL`; asked once of
 * each binary. Throws PREFLIGHT_BINARY.
 */
export const binaryVersion = oncePerBinary(async (binary: string): Promise<string> => {
  try {
    const { stdout } = await runAside(binary, ['--version'], { timeoutMs: TIMEOUT_MS });
    const version = /version: [0-9a-f]+\/([^/]+)\//.exec(stdout)?.[1];
    if (version !== undefined) return version;
    throw new Error(`found ${JSON.stringify(stdout.trim().slice(0, 200))}`);
  } catch (cause) {
    throw new SluiceError('PREFLIGHT_BINARY', `expected ${binary} to tell its version: ${(cause as Error).message}`, {
      cause,
    });
  }
});
