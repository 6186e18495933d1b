import { type EpochStatus, METRICS, type MetricName, type Verdict } from '@sluice/contract';
import type { Metric } from './prometheus.ts';

/** What the agent's metrics are made of; read at each scrape. Times in milliseconds, sizes in bytes. */
export interface AgentSnapshot {
  /** Epoch milliseconds. */
  readonly now: number;
  readonly proxy: string;
  readonly slot: string;
  readonly agentVersion: string;
  readonly epochs: readonly EpochStatus[];
  readonly linkConnected: boolean;
  readonly linkWaiting: number;
  readonly rssBytes: number;
  readonly reports: { readonly reports: number; readonly refused: number; readonly reportBytes: number };
  /** Crashes of Envoys that were not asked to end, since this agent started. */
  readonly crashes?: number;
}

/** Labels are bounded: live epochs only, and the three witnesses. */
export function agentMetrics(s: AgentSnapshot): Metric[] {
  const live = s.epochs.filter((e) => e.state !== 'ended' && e.state !== 'crashed');
  const draining = live.flatMap((e) =>
    e.verdict === undefined ? [] : [{ epoch: String(e.epoch), verdict: e.verdict }],
  );
  /** One sample for each draining epoch of which the value is known. */
  const ofDrains = (name: MetricName, value: (verdict: Verdict) => number | undefined): Metric =>
    metric(
      name,
      draining.flatMap(({ epoch, verdict }) => {
        const known = value(verdict);
        return known === undefined ? [] : [{ labels: { epoch }, value: known }];
      }),
    );
  const one = (name: MetricName, value: number): Metric => metric(name, [{ value }]);
  return [
    metric('sluice_agent_build_info', [
      { labels: { version: s.agentVersion, proxy: s.proxy, slot: s.slot }, value: 1 },
    ]),
    metric(
      'sluice_agent_epoch_info',
      live.map((e) => ({ labels: { epoch: String(e.epoch), version: e.version, state: e.state }, value: 1 })),
    ),
    ofDrains('sluice_agent_epoch_private_memory_bytes', (v) => v.cost?.privateBytes),
    ofDrains('sluice_agent_drain_connections', (v) => v.total),
    ofDrains('sluice_agent_drain_protected_connections', (v) => v.protected),
    ofDrains('sluice_agent_drain_waiting_connections', (v) => v.pacing?.left),
    ofDrains('sluice_agent_drain_told_connections', (v) => v.pacing?.told),
    ofDrains('sluice_agent_drain_rate', (v) => v.pacing?.perSecond),
    ofDrains('sluice_agent_drain_remaining_seconds', ({ estimate }) =>
      estimate?.endsAt === undefined ? undefined : Math.max(0, estimate.endsAt - s.now) / 1_000,
    ),
    ofDrains('sluice_agent_safe_to_reset', (v) => (v.safe ? 1 : 0)),
    metric(
      'sluice_agent_witness_connections',
      draining.flatMap(({ epoch, verdict }) =>
        verdict.witnesses.flatMap((w) =>
          w.open === undefined ? [] : [{ labels: { epoch, witness: w.name }, value: w.open }],
        ),
      ),
    ),
    one('sluice_agent_link_connected', s.linkConnected ? 1 : 0),
    one('sluice_agent_link_waiting_messages', s.linkWaiting),
    one('sluice_agent_resident_memory_bytes', s.rssBytes),
    one('sluice_agent_reports_total', s.reports.reports),
    one('sluice_agent_reports_refused_total', s.reports.refused),
    one('sluice_agent_report_bytes_total', s.reports.reportBytes),
    ...(s.crashes === undefined ? [] : [one('sluice_agent_crashes_total', s.crashes)]),
  ];
}

/** Type and help are the contract's, so that docs/metrics.md tells what is exposed. */
function metric(name: MetricName, samples: Metric['samples']): Metric {
  const { type, help } = METRICS[name];
  if (type === 'histogram') throw new Error(`${name} is a histogram, which this exporter does not write`);
  return { name, help, type, samples };
}
