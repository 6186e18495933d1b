import { METRICS, type MetricSpec } from './metrics.ts';

/** docs/metrics.md, made from the names: `node contract/scripts/docs.ts` writes it, a test compares it. */
export function metricsDoc(): string {
  const rows = Object.entries(METRICS).map(([name, spec]: [string, MetricSpec]) => {
    const labels = spec.labels.map((label) => `\`${label}\``).join(', ');
    return `| \`${name}\` | ${spec.type} | ${labels} | ${spec.help} |`;
  });
  return [
    '# Metrics',
    '',
    'The controller serves them at `/metrics` of its API port, the keeper at its status address. Base units; labels have few',
    'values: a proxy’s name at most, never a peer or an id. `process_*` and `nodejs_*` come along on the controller.',
    'What the Envoy that serves counts is at `/stats/prometheus` of the same address, through all upgrades.',
    '',
    'Made from `contract/src/metrics.ts`; change it there.',
    '',
    '| name | type | labels | meaning |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
}
