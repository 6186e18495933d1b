import type { CheckResult, MethodName } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import type { BroughtUp, EpochPlan, StartOptions } from '../epochs/handover.ts';
import type { AnyEpoch } from '../epochs/live-epoch.ts';
import type { KeeperContext } from '../keeper/context.ts';
import type { FrontContext } from '../keeper/front.ts';
import type { PreflightInput, Serving } from '../preflight/index.ts';

/** What a handover deals with, which is another thing for Envoys than for a proxy that inherits its sockets. */
export interface ProxyKind {
  readonly context: FrontContext;
  readonly epoch: AnyEpoch;
  /** What the checks are given. */
  readonly subject: unknown;
  /** What is known of the new epoch before its start is planned. */
  readonly planned: unknown;
  /** What of the new epoch's start the method decides. */
  readonly line: unknown;
  readonly start: unknown;
  /** What is known of the new epoch when it serves. */
  readonly up: { readonly epoch: AnyEpoch; readonly servingAt: number };
}

/**
 * A way in which a new epoch takes over from the one that serves. Whatever fails before the old one has stopped accepting
 * leaves it accepting, and the new process dead.
 */
export interface HandoverMethod<K extends ProxyKind = EnvoyKind> {
  readonly name: MethodName;
  /** Its own checks; nothing of the serving epoch is touched. */
  check(subject: K['subject']): Promise<readonly CheckResult[]>;
  line(old: K['epoch']['meta'], planned: K['planned']): K['line'];
  /** Resolves when the new epoch accepts and the old one does not. */
  handOver(request: HandoverRequest<K>): Promise<K['up']>;
  /**
   * For the successor of an agent that died in the middle: by the word of their folders it is not settled which of the two
   * serves. Returns whether `starting` does now; when not, it is dead, and the old one serves as before.
   */
  settle(request: SettleRequest<K>): Promise<boolean>;
}

export interface HandoverRequest<K extends ProxyKind = EnvoyKind> {
  readonly context: K['context'];
  /** The epoch that serves. */
  readonly old: K['epoch'];
  /** Start of the new one, which follows the method's own `line`. */
  readonly start: K['start'];
}

export interface SettleRequest<K extends ProxyKind = EnvoyKind> {
  readonly context: K['context'];
  readonly starting: K['epoch'];
  /** The epoch that it was to take over from, when that lives. */
  readonly old: K['epoch'] | undefined;
}

/** Between two Envoys. */
export interface EnvoyKind extends ProxyKind {
  readonly context: KeeperContext;
  readonly epoch: Epoch;
  readonly subject: HandoverSubject;
  readonly planned: LineSubject;
  readonly line: HandoverLine;
  readonly start: StartOptions;
  readonly up: BroughtUp;
}

/** All that the preflight has, with an epoch that serves. */
export type HandoverSubject = PreflightInput & { readonly serving: Serving };

export type HandoverLine = Pick<EpochPlan, 'baseId' | 'restartEpoch' | 'hotRestart'>;

export interface LineSubject {
  /** The number that the new epoch has. */
  readonly epoch: number;
  /** The agent's wish, and whether the broker speaks with the target. */
  readonly hotRestart: boolean;
}
