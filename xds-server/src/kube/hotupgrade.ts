import type { KubernetesObject } from '@kubernetes/client-node';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_STRATEGY,
  type DrainPolicy,
  type IntOrPercent,
  type LabelSelector,
  parsePolicy,
  type RolloutAnalysis,
  type RolloutPods,
  type RolloutSpec,
  type RolloutStrategy,
  toSluiceError,
} from '@sluice/contract';
import type { Kind } from './client.ts';
import type { Condition } from './conditions.ts';
import { API_VERSION } from './crds.ts';
import { proxyOfPod } from './words.ts';

export const HOT_UPGRADES: Kind = { apiVersion: API_VERSION, kind: 'HotUpgrade', plural: 'hotupgrades' };
export const DRAIN_POLICIES: Kind = { apiVersion: API_VERSION, kind: 'DrainPolicy', plural: 'drainpolicies' };
/** Keeps a HotUpgrade that is deleted until the Pods that it began have come to their end. */
export const FINALIZER = 'sluice.dev/rollout';

/** As crds.ts has it: the API server has checked it, and filled in the defaults. */
export interface HotUpgradeSpec {
  readonly selector: LabelSelector;
  readonly container: string;
  readonly target: { readonly image?: string; readonly version?: string };
  readonly provider?: 'InPlace' | 'OpenKruise';
  readonly emptyImage?: string;
  readonly sidecarSet?: string;
  readonly policy?: { readonly inline?: object; readonly name?: string };
  readonly strategy?: {
    readonly partition?: IntOrPercent;
    readonly maxUnavailable?: IntOrPercent;
    readonly canary?: IntOrPercent;
    readonly canaryPods?: readonly string[];
    readonly batches?: readonly IntOrPercent[];
    readonly pauseSeconds?: number;
    readonly promotion?: 'Auto' | 'Manual';
    readonly topologyKey?: string;
    readonly until?: 'Serving' | 'Reset';
    readonly paused?: boolean;
  };
  readonly analysis?: {
    readonly windowSeconds?: number;
    readonly maxFailedUpgrades?: number;
    readonly maxFailedRequests?: number;
    readonly maxCutConnections?: number;
    readonly maxCrashes?: number;
    readonly maxP99Ms?: number;
    readonly onFailure?: 'Pause' | 'Rollback';
  };
}

export interface HotUpgradeStatus {
  readonly observedGeneration?: number;
  readonly fence?: number;
  readonly conditions?: readonly Condition[];
  readonly phase?: string;
  readonly reason?: string;
  readonly rollout?: string;
  readonly image?: string;
  readonly stage?: number;
  readonly stages?: number;
  readonly total?: number;
  readonly updated?: number;
  readonly draining?: number;
  readonly ready?: number;
  readonly failed?: number;
  readonly deleted?: number;
  readonly refused?: readonly { readonly pod: string; readonly reason: string; readonly message: string }[];
}

export interface HotUpgrade extends KubernetesObject {
  readonly spec: HotUpgradeSpec;
  readonly status?: HotUpgradeStatus;
}

export interface DrainPolicyObject extends KubernetesObject {
  readonly spec: object;
  readonly status?: { readonly observedGeneration?: number; readonly conditions?: readonly Condition[] };
}

/** Why a HotUpgrade can not be carried out as it is: reason and message of a condition. */
export interface Problem {
  readonly reason: string;
  readonly message: string;
}

export type Resolved<T> = { readonly value: T } | { readonly problem: Problem };

/** The drain policy that a HotUpgrade means; what its policy leaves out is as in `standard`, the controller's own. */
export function policyOf(
  { metadata, spec }: HotUpgrade,
  find: (namespace: string, name: string) => DrainPolicyObject | undefined,
  standard: DrainPolicy,
): Resolved<DrainPolicy> {
  const { inline, name } = spec.policy ?? {};
  if (name === undefined) return parsed(inline, standard, 'spec.policy.inline');
  const found = find(metadata?.namespace ?? '', name);
  if (found !== undefined) return parsed(found.spec, standard, `DrainPolicy ${name}`);
  const message = `expected DrainPolicy ${name} in namespace ${metadata?.namespace}, found none`;
  return { problem: { reason: 'PolicyNotFound', message } };
}

export function parsed(policy: object | undefined, standard: DrainPolicy, where: string): Resolved<DrainPolicy> {
  try {
    return { value: parsePolicy(policy, standard) };
  } catch (thrown) {
    return { problem: { reason: 'PolicyInvalid', message: `${where}: ${toSluiceError(thrown).message}` } };
  }
}

/** The rollout that a HotUpgrade means. */
export function rolloutSpecOf(hup: HotUpgrade, policy: DrainPolicy): RolloutSpec {
  const { image, version } = hup.spec.target;
  return {
    selector: { proxies: [], labels: {} },
    pods: podsOf(hup),
    target: { to: image ?? version ?? '' },
    policy,
    strategy: strategyOf(hup),
    analysis: analysisOf(hup),
  };
}

export function podsOf({ metadata, spec }: HotUpgrade): RolloutPods {
  const { selector, container, target, provider = 'InPlace', emptyImage, sidecarSet } = spec;
  return {
    namespace: metadata?.namespace ?? '',
    name: metadata?.name ?? '',
    uid: metadata?.uid ?? '',
    selector,
    container,
    target,
    provider,
    ...(emptyImage !== undefined && { emptyImage }),
    ...(sidecarSet !== undefined && { sidecarSet }),
  };
}

function strategyOf({ metadata, spec: { strategy = {} } }: HotUpgrade): RolloutStrategy {
  const { partition, maxUnavailable, canary, canaryPods, batches, pauseSeconds, promotion, topologyKey, until } =
    strategy;
  return {
    partition: partition ?? DEFAULT_STRATEGY.partition,
    maxUnavailable: maxUnavailable ?? DEFAULT_STRATEGY.maxUnavailable,
    // Members are named as their proxies are.
    canary: canaryPods?.map((name) => proxyOfPod(metadata?.namespace ?? '', name)) ?? canary ?? DEFAULT_STRATEGY.canary,
    batches: batches ?? DEFAULT_STRATEGY.batches,
    pauseBetweenMs: (pauseSeconds ?? 0) * 1_000,
    promotion: promotion === 'Manual' ? 'manual' : 'auto',
    spread: topologyKey ?? DEFAULT_STRATEGY.spread,
    until: until === 'Reset' ? 'reset' : 'serving',
  };
}

function analysisOf({ spec: { analysis } }: HotUpgrade): RolloutAnalysis {
  if (analysis === undefined) return DEFAULT_ANALYSIS;
  const { windowSeconds, onFailure, ...limits } = analysis;
  return {
    ...DEFAULT_ANALYSIS,
    ...limits,
    ...(windowSeconds !== undefined && { windowMs: windowSeconds * 1_000 }),
    onFailure: onFailure === 'Pause' ? 'pause' : 'rollback',
  };
}
