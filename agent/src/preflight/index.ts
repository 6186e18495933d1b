import type { CheckResult } from '@sluice/contract';
import type { ProbeResult } from '../broker/index.ts';
import { binaryChecks } from './binary.ts';
import { bootstrapChecks } from './bootstrap.ts';
import { machineChecks } from './machine.ts';

/** The epoch that serves now, which must not be touched. */
export interface Serving {
  readonly pid: number;
  readonly version: string;
  readonly binary: string;
  readonly concurrency: number;
}

export interface PreflightInput {
  readonly binary: string;
  /** The user's bootstrap merged with the presets, as the new epoch would read it. */
  readonly mergedBootstrap: Record<string, unknown>;
  readonly baseId: number;
  readonly concurrency: number;
  /** Folder in which the new epoch's folder will be made. */
  readonly runFolder: string;
  readonly serving?: Serving;
  /** Addresses of UDP sockets of the serving Envoy, for listeners that came by xDS. */
  readonly udpAddresses: readonly string[];
  readonly probe: (binary: string) => Promise<ProbeResult>;
  /** Bytes that may still be used; read from the machine when absent. */
  readonly availableMemory?: number;
}

export interface PreflightResult {
  readonly ok: boolean;
  readonly checks: readonly CheckResult[];
}

/** All checks run, though one fails: a person mends them together. Nothing of the serving epoch is touched. */
export async function preflight(input: PreflightInput): Promise<PreflightResult> {
  const binary = await binaryChecks(input);
  const runs = binary.every((check) => check.ok || check.name !== 'binary');
  const checks = [...binary, ...(await bootstrapChecks(input, runs)), ...machineChecks(input)];
  return { ok: checks.every((check) => check.ok), checks };
}
