/**
 * Every metric that Sluice exposes. Base units; labels with few values only: a proxy's name, never a peer or an id.
 */
export interface MetricSpec {
  readonly type: 'gauge' | 'counter' | 'histogram';
  readonly help: string;
  readonly labels: readonly string[];
  /** Histograms only, in the metric's unit. */
  readonly buckets?: readonly number[];
}

const DURATIONS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600];

export const METRICS = {
  sluice_build_info: {
    type: 'gauge',
    help: 'Always 1; the labels tell what runs.',
    labels: ['component', 'version', 'node_version'],
  },
  sluice_proxies: { type: 'gauge', help: 'Known proxies.', labels: ['connected'] },
  sluice_agents_connected: { type: 'gauge', help: 'Agents whose link lives.', labels: [] },
  sluice_agent_link_events_total: { type: 'counter', help: 'Links by what happened to them.', labels: ['event'] },
  sluice_epochs: { type: 'gauge', help: 'Epochs that have not ended, by state.', labels: ['proxy', 'state'] },
  sluice_upgrades: { type: 'gauge', help: 'Upgrades under way, by phase.', labels: ['phase'] },
  sluice_upgrades_ended_total: { type: 'counter', help: 'Upgrades by how they ended.', labels: ['phase'] },
  sluice_upgrade_duration_seconds: {
    type: 'histogram',
    help: 'From the request to the end of an upgrade.',
    labels: ['phase'],
    buckets: DURATIONS,
  },
  sluice_drain_duration_seconds: {
    type: 'histogram',
    help: 'From the drain order to the end of the old epoch.',
    labels: [],
    buckets: DURATIONS,
  },
  sluice_drain_order_applied_seconds: {
    type: 'histogram',
    help: 'From the drain order until it was applied, by the way it came.',
    labels: ['via'],
    buckets: DURATIONS,
  },
  sluice_old_connections: {
    type: 'gauge',
    help: 'Connections left on draining epochs, by whether policy protects them.',
    labels: ['proxy', 'protected'],
  },
  sluice_connections_drained_total: { type: 'counter', help: 'Old connections that ended by themselves.', labels: [] },
  sluice_connections_cut_total: { type: 'counter', help: 'Old connections cut by a reset.', labels: [] },
  sluice_overrides_total: { type: 'counter', help: 'Resets with protected connections left.', labels: ['by'] },
  sluice_xds_streams: { type: 'gauge', help: 'Open xDS streams.', labels: [] },
  sluice_xds_nacks_total: { type: 'counter', help: 'Resources that an Envoy refused.', labels: ['type'] },
  sluice_injections_total: {
    type: 'counter',
    help: 'Pods that the webhook was asked about: injected, skipped, refused.',
    labels: ['result'],
  },
  sluice_resource_loads_total: { type: 'counter', help: 'Reads of the resource folder.', labels: ['result'] },
  sluice_agent_build_info: {
    type: 'gauge',
    help: 'Always 1; the labels tell what runs.',
    labels: ['version', 'proxy', 'slot'],
  },
  sluice_agent_epoch_info: {
    type: 'gauge',
    help: '1 for each live epoch of Envoy.',
    labels: ['epoch', 'version', 'state'],
  },
  sluice_agent_epoch_private_memory_bytes: {
    type: 'gauge',
    help: 'Memory that would be free without a draining epoch.',
    labels: ['epoch'],
  },
  sluice_agent_drain_connections: { type: 'gauge', help: 'Connections left on a draining epoch.', labels: ['epoch'] },
  sluice_agent_drain_protected_connections: {
    type: 'gauge',
    help: 'Those of them that policy waits for.',
    labels: ['epoch'],
  },
  sluice_agent_drain_waiting_connections: {
    type: 'gauge',
    help: 'Those of them whose turn to be told to leave has not come.',
    labels: ['epoch'],
  },
  sluice_agent_drain_told_connections: {
    type: 'gauge',
    help: 'Connections of a draining epoch that were told to leave one by one.',
    labels: ['epoch'],
  },
  sluice_agent_drain_rate: {
    type: 'gauge',
    help: 'Connections told to leave each second, now; 0 = all at once.',
    labels: ['epoch'],
  },
  sluice_agent_drain_remaining_seconds: {
    type: 'gauge',
    help: 'When the drain is over, as likely as not; absent while no end is in sight.',
    labels: ['epoch'],
  },
  sluice_agent_safe_to_reset: {
    type: 'gauge',
    help: '1 when a draining epoch holds nothing that is protected.',
    labels: ['epoch'],
  },
  sluice_agent_witness_connections: {
    type: 'gauge',
    help: 'Connections of a draining epoch that each witness counts; absent while it can not be heard.',
    labels: ['epoch', 'witness'],
  },
  sluice_agent_link_connected: { type: 'gauge', help: '1 while the controller is reached.', labels: [] },
  sluice_agent_link_waiting_messages: { type: 'gauge', help: 'Messages kept for the controller.', labels: [] },
  sluice_agent_resident_memory_bytes: { type: 'gauge', help: 'Resident memory of the agent.', labels: [] },
  sluice_agent_reports_total: { type: 'counter', help: 'Reports received from filters.', labels: [] },
  sluice_agent_reports_refused_total: { type: 'counter', help: 'Reports refused.', labels: [] },
  sluice_agent_report_bytes_total: { type: 'counter', help: 'Bytes of reports received.', labels: [] },
  sluice_agent_crashes_total: {
    type: 'counter',
    help: 'Envoys that ended unasked since this agent started.',
    labels: [],
  },
} as const satisfies Record<string, MetricSpec>;

export type MetricName = keyof typeof METRICS;
