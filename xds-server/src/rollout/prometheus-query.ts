import type { RolloutMember } from '@sluice/contract';
import { SluiceError } from '@sluice/contract';
import type { RolloutState } from './state.ts';

/** By which labels Prometheus knows a member: those that the scrape configuration gives its samples. */
export type MemberLabels =
  /** The label whose value is the proxy's name. */
  | { readonly proxy: string }
  /** Of a proxy that is called POD.NAMESPACE. */
  | { readonly pod: string; readonly namespace: string };

/**
 * What Envoy's own counters say. 5xx that a member sent, also those of its upstreams: a target that breaks the way there is
 * seen by them too. Envoy's histograms are in milliseconds. The admin's own requests are no traffic.
 */
export const DEFAULT_QUERIES = {
  failedRequests:
    'sum by ($by) (increase(envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix!="admin",$members}[$range]))',
  p99Ms:
    'histogram_quantile(0.99, sum by (le) (rate(envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix!="admin",$members}[$range])))',
} as const;

/** Members whose counts are asked for at once, over the same time. */
export interface Window {
  readonly members: readonly string[];
  readonly seconds: number;
}

/** A window reaches before the beginning of the youngest of its members by half of what it is after it, at most. */
const SPREAD = 1.5;

/**
 * One window for members that were begun at about the same time: few questions, and little of what was before a member's upgrade.
 * A fleet that is upgraded for a week makes some thirty of them.
 */
export function windowsOf({ members, judgedFrom = 0 }: RolloutState, now: number): Window[] {
  const begun = members
    .flatMap(({ name, startedAt }) =>
      startedAt === undefined ? [] : [{ name, ageMs: Math.max(1_000, now - Math.max(startedAt, judgedFrom)) }],
    )
    .sort((a, b) => b.ageMs - a.ageMs);
  const windows: { members: string[]; ageMs: number }[] = [];
  for (const { name, ageMs } of begun) {
    const last = windows.at(-1);
    if (last !== undefined && ageMs * SPREAD >= last.ageMs) last.members.push(name);
    else windows.push({ members: [name], ageMs });
  }
  return windows.map(({ members: names, ageMs }) => ({ members: names, seconds: Math.ceil(ageMs / 1_000) }));
}

/** Has served for so long that there have to be samples of it. */
export function isSettled({ state, servedAt }: RolloutMember, windowMs: number, now: number): boolean {
  return state !== 'failed' && servedAt !== undefined && now - servedAt >= windowMs;
}

export function expand(template: string, labels: MemberLabels, { members, seconds }: Window): string {
  const values: Record<string, string> = {
    members: matchers(labels, members),
    by: names(labels).join(','),
    range: `${seconds}s`,
  };
  return template.replace(/\$(members|by|range)\b/g, (_, key: string) => values[key] ?? '');
}

function matchers(labels: MemberLabels, members: readonly string[]): string {
  if ('proxy' in labels) return `${labels.proxy}=~${oneOf(members)}`;
  const pods = members.map(podOf);
  const namespaces = [...new Set(pods.map((one) => one.namespace))];
  return `${labels.namespace}=~${oneOf(namespaces)},${labels.pod}=~${oneOf(pods.map((one) => one.pod))}`;
}

/** A regular expression of RE2 that means just these, in quotes. Prometheus looks such a list up and does not search. */
function oneOf(values: readonly string[]): string {
  return JSON.stringify(values.map((one) => one.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|'));
}

function names(labels: MemberLabels): string[] {
  return 'proxy' in labels ? [labels.proxy] : [labels.namespace, labels.pod];
}

/** A namespace has no dot; the name of a Pod may. */
function podOf(member: string): { pod: string; namespace: string } {
  const dot = member.lastIndexOf('.');
  return { pod: member.slice(0, dot), namespace: member.slice(dot + 1) };
}

export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  /** NaN: of nothing, such as a quantile of no requests. */
  readonly value: number;
}

/** Whose sample it is; undefined: the query sums members up. */
export function memberOf({ labels: found }: Sample, labels: MemberLabels): string | undefined {
  if ('proxy' in labels) return found[labels.proxy];
  const { [labels.pod]: pod, [labels.namespace]: namespace } = found;
  return pod === undefined || namespace === undefined ? undefined : `${pod}.${namespace}`;
}

/** The answer of `/api/v1/query`: a scalar, or an instant vector. Throws METRICS_UNKNOWN for anything else. */
export function samplesOf(answer: unknown): Sample[] {
  const { status, error, data } = (answer ?? {}) as { status?: unknown; error?: unknown; data?: unknown };
  if (status !== 'success') throw unknown(`Prometheus says: ${String(error ?? 'no success').slice(0, 300)}`);
  const { resultType, result } = (data ?? {}) as { resultType?: unknown; result?: unknown };
  if (resultType === 'scalar') return [{ labels: {}, value: numberOf(result) }];
  if (resultType !== 'vector' || !Array.isArray(result)) {
    throw unknown(`expected a query that makes numbers, found one that makes a ${String(resultType).slice(0, 40)}`);
  }
  return result.map((one: { metric?: Record<string, string>; value?: unknown }) => ({
    labels: one.metric ?? {},
    value: numberOf(one.value),
  }));
}

/** `[time, "text"]`. An infinity is no number that JSON could keep: a histogram whose buckets end too early makes one. */
function numberOf(pair: unknown): number {
  const text: unknown = Array.isArray(pair) ? pair[1] : undefined;
  const value = text === 'NaN' ? Number.NaN : Number(text);
  if (typeof text !== 'string' || (Number.isNaN(value) && text !== 'NaN') || Math.abs(value) === Infinity)
    throw unknown(`expected a number, found ${JSON.stringify(text)?.slice(0, 40)}`);
  return value;
}

export function unknown(message: string, cause?: unknown): SluiceError {
  return new SluiceError('METRICS_UNKNOWN', message, cause === undefined ? {} : { cause });
}
