import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CheckResult } from '@sluice/contract';
import { isQuic } from '@sluice/contract/presets/index';
import { runAside } from '../binaries/aside.ts';
import { scratchFolder } from '../native/scratch.ts';
import type { PreflightInput } from './index.ts';
import { failed, passed } from './result.ts';

const VALIDATE_TIMEOUT_MS = 30_000;
/** In either spelling of Envoy's JSON: by its configuration, or by an address (the enum's name or number). */
const LISTENER_UDP = /"udp_?listener_?config":|"protocol":("UDP"|1\b)/i;

/** Envoy itself takes the merged bootstrap, and no listener is of a kind that can not be handed over. */
export async function bootstrapChecks(input: PreflightInput, binaryRuns: boolean): Promise<CheckResult[]> {
  const checks: CheckResult[] = [];
  if (binaryRuns) checks.push(await validate(input));
  checks.push(concurrency(input), udp(input));
  return checks;
}

/** `--mode validate` never opens the shared memory (envoy-facts 3). */
async function validate({ binary, mergedBootstrap, runFolder }: PreflightInput): Promise<CheckResult> {
  const folder = scratchFolder('preflight', runFolder);
  try {
    const file = join(folder, 'bootstrap.json');
    writeFileSync(file, JSON.stringify(mergedBootstrap), { mode: 0o600 });
    const said = await run(binary, ['--mode', 'validate', '-c', file, '-l', 'error']);
    if (said === undefined) return passed('bootstrap', 'Envoy takes it');
    return failed('bootstrap', 'PREFLIGHT_BOOTSTRAP', said.replaceAll(file, 'the merged bootstrap'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Undefined = exit code 0; else the line that says why. */
async function run(binary: string, args: readonly string[]): Promise<string | undefined> {
  try {
    await runAside(binary, args, { timeoutMs: VALIDATE_TIMEOUT_MS });
    return undefined;
  } catch (thrown) {
    const error = thrown as Error & { killed?: boolean; stdout?: string; stderr?: string };
    if (error.killed) return `no answer within ${VALIDATE_TIMEOUT_MS} ms`;
    const lines = `${error.stderr}\n${error.stdout}`.split('\n').filter((line) => line.trim() !== '');
    const reason =
      lines.findLast((line) => /error initializing configuration|Unable|INVALID|error/i.test(line)) ?? lines.at(-1);
    return (reason ?? error.message).replace(/^\[[^\]]*\](\[[^\]]*\])*\s*(\[[^\]]*\]\s*)?/, '').slice(0, 1_000);
  }
}

function concurrency({ concurrency: wanted, serving }: PreflightInput): CheckResult {
  if (!serving || serving.concurrency === wanted) return passed('concurrency', `${wanted} workers`);
  // Accept queues of reuse_port sockets are per worker: 4<->2 lost 8 of 117k connections (envoy-facts, Accepting).
  return failed('concurrency', 'PREFLIGHT_CONCURRENCY', `serving ${serving.concurrency} workers, target ${wanted}`);
}

/** QUIC connections are handed over, with the sockets that they share (epochs/quic.ts); other UDP has no connections. */
function udp({ mergedBootstrap, udpAddresses }: PreflightInput): CheckResult {
  const listeners = udpListeners(mergedBootstrap);
  const names = listeners.filter((one) => !isQuic(one)).map(({ name }) => String(name ?? 'unnamed'));
  const found = [...names.map((n) => `listener ${n}`), ...udpAddresses.map((a) => `UDP socket ${a}`)];
  if (found.length > 0) return failed('udp', 'PREFLIGHT_UDP', found.join(', '));
  return passed('udp', listeners.length === 0 ? 'no UDP or QUIC listener' : `${listeners.length} QUIC`);
}

/** The static listeners over UDP. */
export function udpListeners(bootstrap: Record<string, unknown>): Record<string, unknown>[] {
  const resources = (bootstrap.static_resources ?? bootstrap.staticResources) as
    | { listeners?: Record<string, unknown>[] }
    | undefined;
  return (resources?.listeners ?? []).filter((listener) =>
    LISTENER_UDP.test(JSON.stringify({ ...listener, filter_chains: [], filterChains: [] })),
  );
}
