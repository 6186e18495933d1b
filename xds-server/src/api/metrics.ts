import { METRICS, type MetricName, type MetricSpec, PHASES, type RecordEntry } from '@sluice/contract';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { UpgradeState } from '../drain/state.ts';
import type { Agents } from '../link/agents.ts';
import { isLiving } from '../link/agents.ts';

export interface MetricSources {
  readonly version: string;
  readonly agents: Agents;
  readonly active: () => readonly UpgradeState[];
  /** Each proxy is counted by one of several replicas. */
  readonly owns: (proxy: string) => boolean;
  readonly xdsStreams: () => number;
}

/** The controller's metrics. Gauges are read when they are asked for. */
export class Metrics {
  readonly registry = new Registry();
  readonly #counters = new Map<MetricName, Counter>();
  readonly #histograms = new Map<MetricName, Histogram>();

  constructor(sources: MetricSources) {
    const { agents } = sources;
    // Memory, CPU, file descriptors and event loop of this process, under the names that dashboards know.
    collectDefaultMetrics({ register: this.registry });
    this.#gauge('sluice_build_info', (gauge) => {
      gauge.set({ component: 'controller', version: sources.version, node_version: process.version }, 1);
    });
    this.#gauge('sluice_proxies', (gauge) => {
      const own = agents.proxies().filter(sources.owns);
      const there = own.filter((proxy) => agents.connectedSlots(proxy).size > 0).length;
      gauge.set({ connected: 'true' }, there);
      gauge.set({ connected: 'false' }, own.length - there);
    });
    this.#gauge('sluice_agents_connected', (gauge) => {
      gauge.set(agents.proxies().reduce((sum, proxy) => sum + agents.connectedSlots(proxy).size, 0));
    });
    this.#gauge('sluice_epochs', (gauge) => {
      gauge.reset();
      for (const proxy of agents.proxies().filter(sources.owns)) {
        const epochs = agents.of(proxy).flatMap((one) => one.epochs.filter(isLiving));
        for (const { state } of epochs) gauge.inc({ proxy, state });
      }
    });
    this.#gauge('sluice_upgrades', (gauge) => {
      for (const phase of PHASES) gauge.set({ phase }, 0);
      for (const { phase } of sources.active()) gauge.inc({ phase });
    });
    this.#gauge('sluice_old_connections', (gauge) => {
      gauge.reset();
      for (const { proxy, verdict } of sources.active()) {
        if (verdict === undefined) continue;
        gauge.inc({ proxy, protected: 'true' }, verdict.protected);
        gauge.inc({ proxy, protected: 'false' }, verdict.total - verdict.protected);
      }
    });
    this.#gauge('sluice_xds_streams', (gauge) => gauge.set(sources.xdsStreams()));
    for (const name of Object.keys(METRICS) as MetricName[]) {
      const spec: MetricSpec = METRICS[name];
      if (name.startsWith('sluice_agent_') && name !== 'sluice_agent_link_events_total') continue;
      const common = { name, help: spec.help, labelNames: [...spec.labels], registers: [this.registry] };
      if (spec.type === 'counter') this.#counters.set(name, new Counter(common));
      if (spec.type === 'histogram') {
        this.#histograms.set(name, new Histogram({ ...common, buckets: [...(spec.buckets ?? [])] }));
      }
    }
  }

  count(name: MetricName, labels: Record<string, string> = {}, by = 1): void {
    this.#counters.get(name)?.inc(labels, by);
  }

  /** What one line of a record adds. */
  record(entry: RecordEntry, state: UpgradeState): void {
    const { order } = state;
    switch (entry.event) {
      case 'order-applied':
        if (order !== undefined) {
          const via = state.orderVia ?? 'unknown';
          this.#observe('sluice_drain_order_applied_seconds', { via }, entry.at - order.issuedAt);
        }
        break;
      case 'override':
        // Who it was is in the record; here only whether a person or policy decided.
        this.count('sluice_overrides_total', { by: state.override?.by === 'policy' ? 'policy' : 'operator' });
        break;
      case 'reset':
        this.count('sluice_connections_drained_total', {}, state.connections?.drained ?? 0);
        this.count('sluice_connections_cut_total', {}, state.connections?.cut.length ?? 0);
        if (order !== undefined) this.#observe('sluice_drain_duration_seconds', {}, entry.at - order.issuedAt);
        break;
      case 'phase':
        if (entry.phase === 'Done' || entry.phase === 'Failed' || entry.phase === 'RolledBack') {
          this.count('sluice_upgrades_ended_total', { phase: entry.phase });
          this.#observe('sluice_upgrade_duration_seconds', { phase: entry.phase }, entry.at - state.createdAt);
        }
        break;
    }
  }

  #observe(name: MetricName, labels: Record<string, string>, ms: number): void {
    this.#histograms.get(name)?.observe(labels, Math.max(0, ms) / 1000);
  }

  #gauge(name: MetricName, read: (gauge: Gauge) => void): void {
    const spec: MetricSpec = METRICS[name];
    const gauge: Gauge = new Gauge({
      name,
      help: spec.help,
      labelNames: [...spec.labels],
      registers: [this.registry],
      collect: () => read(gauge),
    });
  }
}
