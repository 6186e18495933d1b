import type { CheckResult, MethodName, MethodWish } from '@sluice/contract';
import type { ProbeResult } from '../binaries/probe.ts';
import { chooseMethod } from '../methods/choose.ts';
import { binaryCheck } from './binary.ts';
import { bootstrapChecks } from './bootstrap.ts';
import { machineChecks } from './machine.ts';

/** The epoch that serves now, which must not be touched. */
export interface Serving {
  readonly pid: number;
  readonly version: string;
  readonly binary: string;
  readonly concurrency: number;
  readonly baseId: number;
  /** Path of a Unix socket, or `host:port`. */
  readonly adminAddress: string;
  /** False: it was started without hot restart. */
  readonly hotRestart?: boolean;
}

export interface PreflightInput {
  readonly binary: string;
  /** The user's bootstrap merged with the presets, as the new epoch would read it. */
  readonly mergedBootstrap: Record<string, unknown>;
  readonly concurrency: number;
  /** Folder in which the new epoch's folder will be made. */
  readonly runFolder: string;
  readonly serving?: Serving;
  /** False: the user does not want hot restart. */
  readonly hotRestart: boolean;
  /** How to hand over. */
  readonly wish: MethodWish;
  /** The ways to hand over, the best first. */
  readonly methods: readonly MethodChecker[];
  /** Addresses of UDP sockets of the serving Envoy that are not known to be QUIC. */
  readonly udpAddresses: readonly string[];
  /** The serving Envoy has QUIC listeners. */
  readonly quic?: boolean;
  readonly probe: (binary: string) => Promise<ProbeResult>;
  /** Bytes that may still be used; read from the machine when absent. */
  readonly availableMemory?: number;
}

export interface MethodChecker {
  readonly name: MethodName;
  check(input: PreflightInput & { readonly serving: Serving }): Promise<readonly CheckResult[]>;
}

export interface PreflightResult {
  readonly ok: boolean;
  readonly checks: readonly CheckResult[];
  /** How the new epoch will take over; absent when no way was found, or nothing serves. */
  readonly method?: MethodName;
}

/** All checks run, though one fails: a person mends them together. Nothing of the serving epoch is touched. */
export async function preflight(input: PreflightInput): Promise<PreflightResult> {
  const binary = await binaryCheck(input);
  const common = [binary, ...(await bootstrapChecks(input, binary.ok)), ...machineChecks(input)];
  const { serving } = input;
  // Of a binary that does not run no method can say anything.
  if (!serving || !binary.ok) return { ok: common.every(({ ok }) => ok), checks: common };
  const { method, checks: own, check } = await methodFor({ ...input, serving });
  const checks = [...common, ...own, check];
  return { ok: checks.every(({ ok }) => ok), checks, ...(method && { method }) };
}

/** The methods' own checks, and the choice among them. */
export async function methodFor(input: PreflightInput & { readonly serving: Serving }) {
  const candidates = input.methods.map(async ({ name, check }) => ({ name, checks: await check(input) }));
  return chooseMethod(input.wish, await Promise.all(candidates));
}
