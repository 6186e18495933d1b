import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { METRICS, type MetricSpec } from './metrics.ts';
import { metricsDoc } from './metrics-doc.ts';

it('metric names follow the conventions: prefix, base units, `_total` for counters only, bounded labels', () => {
  const unbounded = ['peer', 'id', 'connection', 'upgrade', 'message', 'path'];
  for (const [name, spec] of Object.entries(METRICS) as [string, MetricSpec][]) {
    expect(name).toMatch(/^sluice_[a-z_]+$/);
    expect(name.endsWith('_total'), name).toBe(spec.type === 'counter');
    expect(name).not.toMatch(/_(ms|milliseconds|kb|mb|minutes)(_|$)/);
    expect(spec.help).not.toBe('');
    for (const label of spec.labels) expect(unbounded).not.toContain(label);
    if (spec.type === 'histogram') {
      expect(name).toMatch(/_(seconds|bytes)$/);
      expect([...(spec.buckets ?? [])].sort((a, b) => a - b)).toEqual(spec.buckets);
    }
  }
});

it('docs/metrics.md is what the names say', () => {
  const file = join(import.meta.dirname, '..', '..', 'docs', 'metrics.md');
  expect(readFileSync(file, 'utf8'), 'run: node contract/scripts/docs.ts').toBe(metricsDoc());
});
