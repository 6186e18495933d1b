import type { CheckResult, MethodName } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import type { EpochMeta } from '../epochs/folder.ts';
import type { BroughtUp, EpochPlan, StartOptions } from '../epochs/handover.ts';
import type { KeeperContext } from '../keeper/context.ts';
import type { PreflightInput, Serving } from '../preflight/index.ts';

/** What the checks of a method are given: all that the preflight has, with an epoch that serves. */
export type HandoverSubject = PreflightInput & { readonly serving: Serving };

/** What of the new epoch's start the method decides. */
export type HandoverLine = Pick<EpochPlan, 'baseId' | 'restartEpoch' | 'hotRestart'>;

export interface HandoverRequest {
  readonly context: KeeperContext;
  /** The epoch that serves. */
  readonly old: Epoch;
  /** Start of the new one; `start.plan` follows the method's own `line`. */
  readonly start: StartOptions;
}

/**
 * A way in which a new epoch takes over from the one that serves. Whatever fails before the old one has stopped accepting
 * leaves it accepting, and the new process dead.
 */
export interface HandoverMethod {
  readonly name: MethodName;
  /** Its own checks; nothing of the serving epoch is touched. */
  check(subject: HandoverSubject): Promise<readonly CheckResult[]>;
  line(old: EpochMeta, subject: LineSubject): HandoverLine;
  /** Resolves when the new epoch accepts and the old one does not. */
  handOver(request: HandoverRequest): Promise<BroughtUp>;
  /**
   * For the successor of an agent that died in the middle: `starting` does not serve by the word of its folder. Returns
   * whether it does now; when not, it is dead, and the old one serves as before.
   */
  settle(request: SettleRequest): Promise<boolean>;
}

export interface LineSubject {
  /** The number that the new epoch has. */
  readonly epoch: number;
  /** The agent's wish, and whether the broker speaks with the target. */
  readonly hotRestart: boolean;
}

export interface SettleRequest {
  readonly context: KeeperContext;
  readonly starting: Epoch;
  /** The epoch that it was to take over from, when that lives. */
  readonly old: Epoch | undefined;
}
