import type { EpochStatus } from '@sluice/contract';
import type { Metric } from './prometheus.ts';

/** What the agent's metrics are made of; read at each scrape. Times in milliseconds, sizes in bytes. */
export interface AgentSnapshot {
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
  const gauge = (name: string, help: string, samples: Metric['samples']): Metric => ({
    name,
    help,
    type: 'gauge',
    samples,
  });
  const counter = (name: string, help: string, value: number): Metric => ({
    name,
    help,
    type: 'counter',
    samples: [{ value }],
  });
  return [
    gauge('sluice_agent_build_info', 'Version of this agent.', [
      { labels: { version: s.agentVersion, proxy: s.proxy, slot: s.slot }, value: 1 },
    ]),
    gauge(
      'sluice_agent_epoch_info',
      'One for each live epoch of Envoy.',
      live.map((e) => ({ labels: { epoch: String(e.epoch), version: e.version, state: e.state }, value: 1 })),
    ),
    gauge(
      'sluice_agent_drain_connections',
      'Connections left on a draining epoch, by the verdict.',
      draining.map(({ epoch, verdict }) => ({ labels: { epoch }, value: verdict.total })),
    ),
    gauge(
      'sluice_agent_drain_protected_connections',
      'Connections left on a draining epoch that policy waits for.',
      draining.map(({ epoch, verdict }) => ({ labels: { epoch }, value: verdict.protected })),
    ),
    gauge(
      'sluice_agent_safe_to_reset',
      '1 when the draining epoch holds nothing that is protected.',
      draining.map(({ epoch, verdict }) => ({ labels: { epoch }, value: verdict.safe ? 1 : 0 })),
    ),
    gauge(
      'sluice_agent_witness_connections',
      'Connections of a draining epoch that each witness counts; absent while it can not be heard.',
      draining.flatMap(({ epoch, verdict }) =>
        verdict.witnesses.flatMap((w) =>
          w.open === undefined ? [] : [{ labels: { epoch, witness: w.name }, value: w.open }],
        ),
      ),
    ),
    gauge('sluice_agent_link_connected', '1 while connected with a controller.', [{ value: s.linkConnected ? 1 : 0 }]),
    gauge('sluice_agent_link_waiting_messages', 'Messages kept for the controller.', [{ value: s.linkWaiting }]),
    gauge('sluice_agent_resident_memory_bytes', 'Resident memory of the agent.', [{ value: s.rssBytes }]),
    counter('sluice_agent_reports_total', 'Reports received from filters.', s.reports.reports),
    counter('sluice_agent_reports_refused_total', 'Reports refused.', s.reports.refused),
    counter('sluice_agent_report_bytes_total', 'Bytes of reports received.', s.reports.reportBytes),
    ...(s.crashes === undefined ? [] : [counter('sluice_agent_crashes_total', 'Envoys that crashed.', s.crashes)]),
  ];
}
