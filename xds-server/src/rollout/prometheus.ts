import type { MetricsSource } from './fleet.ts';
import { type PrometheusAddress, PrometheusClient } from './prometheus-client.ts';
import {
  DEFAULT_QUERIES,
  expand,
  isSettled,
  type MemberLabels,
  memberOf,
  type Sample,
  unknown,
  type Window,
  windowsOf,
} from './prometheus-query.ts';
import type { Measured, RolloutState } from './state.ts';

export interface PrometheusOptions extends PrometheusAddress {
  /** Default: `namespace` and `pod` for Pods, as scrape configurations for Kubernetes have it; else `proxy`. */
  readonly labels?: MemberLabels | undefined;
  /** PromQL in which `$members` are the matchers of the members, `$by` their labels, `$range` a duration. */
  readonly failedRequests?: string | undefined;
  readonly p99Ms?: string | undefined;
  readonly everySeconds: number;
}

/** Failed requests and latency of a rollout's members, from the counters that a Prometheus scrapes of their Envoys. */
export class PrometheusSource implements MetricsSource {
  readonly everyMs: number;
  readonly #client: Pick<PrometheusClient, 'query'>;
  readonly #labels: MemberLabels | undefined;
  readonly #failedRequests: string;
  readonly #p99Ms: string;

  constructor(options: PrometheusOptions, client: Pick<PrometheusClient, 'query'> = new PrometheusClient(options)) {
    this.everyMs = options.everySeconds * 1_000;
    this.#client = client;
    this.#labels = options.labels;
    this.#failedRequests = options.failedRequests ?? DEFAULT_QUERIES.failedRequests;
    this.#p99Ms = options.p99Ms ?? DEFAULT_QUERIES.p99Ms;
  }

  async measure(state: RolloutState, now: number, signal: AbortSignal): Promise<Measured> {
    const { maxFailedRequests, maxP99Ms } = state.spec.analysis;
    if (!state.members.some((one) => one.startedAt !== undefined)) {
      await this.#areKnown(state, signal);
      return { at: now };
    }
    return {
      at: now,
      ...(maxFailedRequests !== null && { failedRequests: await this.#failed(state, now, signal) }),
      ...(maxP99Ms !== null && (await this.#latency(state, now, signal))),
    };
  }

  /** A rollout that nothing could judge later is not begun: a wrong label or query shows here. */
  async #areKnown(state: RolloutState, signal: AbortSignal): Promise<void> {
    const { members, spec } = state;
    const labels = this.#labelsOf(state);
    const window: Window = { members: members.map((one) => one.name), seconds: spec.analysis.windowMs / 1_000 };
    const asked: [string, string, number | null][] = [
      ['failedRequests', this.#failedRequests, spec.analysis.maxFailedRequests],
      ['p99Ms', this.#p99Ms, spec.analysis.maxP99Ms],
    ];
    for (const [what, template, limit] of asked) {
      if (limit === null) continue;
      if ((await this.#ask(template, labels, window, signal)).length === 0)
        throw noSamples(what, labels, window.members);
    }
  }

  async #failed(state: RolloutState, now: number, signal: AbortSignal): Promise<number> {
    const { windowMs } = state.spec.analysis;
    const labels = this.#labelsOf(state);
    const settled = new Set(state.members.filter((one) => isSettled(one, windowMs, now)).map((one) => one.name));
    let sum = 0;
    for (const window of windowsOf(state, now)) {
      const samples = await this.#ask(this.#failedRequests, labels, window, signal);
      const heard = new Set(samples.map((one) => memberOf(one, labels)));
      if (heard.has(undefined) && samples.length > 1)
        throw unknown('failedRequests: expected one number, or one for each of $by: put sum() around the query');
      const missing = window.members.filter((name) => settled.has(name) && !heard.has(name) && !heard.has(undefined));
      if (missing.length > 0) throw noSamples('failedRequests', labels, missing);
      if (samples.some((one) => Number.isNaN(one.value))) throw unknown('failedRequests: expected a number, found NaN');
      sum += samples.reduce((all, one) => all + one.value, 0);
    }
    // increase() reckons what the ends of its range would have been: a single failure is 1.07 of one.
    return sum > 0 ? Math.max(1, Math.round(sum)) : 0;
  }

  async #latency(state: RolloutState, now: number, signal: AbortSignal): Promise<{ p99Ms?: number }> {
    const { windowMs } = state.spec.analysis;
    const labels = this.#labelsOf(state);
    const members = state.members.filter((one) => one.startedAt !== undefined);
    const window: Window = { members: members.map((one) => one.name), seconds: windowMs / 1_000 };
    const samples = await this.#ask(this.#p99Ms, labels, window, signal);
    const values = samples.map((one) => one.value).filter((value) => !Number.isNaN(value));
    if (values.length > 0) return { p99Ms: Math.round(Math.max(...values) * 10) / 10 };
    if (!members.some((one) => isSettled(one, windowMs, now))) return {};
    if (samples.length === 0) throw noSamples('p99Ms', labels, window.members);
    throw unknown(`p99Ms: no requests within ${window.seconds} s at ${some(window.members)}: nothing to judge by`);
  }

  #labelsOf({ spec }: RolloutState): MemberLabels {
    return this.#labels ?? (spec.pods === undefined ? { proxy: 'proxy' } : { pod: 'pod', namespace: 'namespace' });
  }

  #ask(template: string, labels: MemberLabels, window: Window, signal: AbortSignal): Promise<Sample[]> {
    return this.#client.query(expand(template, labels, window), signal);
  }
}

function noSamples(what: string, labels: MemberLabels, members: readonly string[]): Error {
  const by = Object.values(labels).join(' and ');
  return unknown(`${what}: no samples of ${some(members)}, found by label ${by}: are they scraped?`);
}

function some(names: readonly string[]): string {
  return names.length <= 3 ? names.join(', ') : `${names.slice(0, 3).join(', ')} and ${names.length - 3} more`;
}
