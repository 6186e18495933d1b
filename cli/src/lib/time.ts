import { SluiceError } from '@sluice/contract';

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** `500ms`, `30s`, `10m`, `1h`, `1h30m`, in milliseconds. Throws CONFIG_INVALID. */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((p) => p[0]).join('') !== text) {
    throw new SluiceError('CONFIG_INVALID', `expected a duration such as 30s or 10m, found ${JSON.stringify(text)}`);
  }
  const ms = parts.reduce((sum, [, count, unit]) => sum + Number(count) * UNITS[unit as keyof typeof UNITS], 0);
  // Beyond 32 bits timers fire at once.
  if (ms > 2_147_483_647) throw new SluiceError('CONFIG_INVALID', `expected at most 24 days, found ${text}`);
  return Math.round(ms);
}

/** A span of time for a person: `850ms`, `12s`, `5m30s`, `3h10m`, `4d2h`. */
export function formatSpan(ms: number): string {
  if (ms < 0) return '0s';
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  const s = Math.floor(ms / 1_000);
  if (s < 60) return `${s}s`;
  const m = Math.floor(s / 60);
  if (m < 60) return pair(m, 'm', s % 60, 's');
  const h = Math.floor(m / 60);
  if (h < 24) return pair(h, 'h', m % 60, 'm');
  return pair(Math.floor(h / 24), 'd', h % 24, 'h');
}

function pair(a: number, aUnit: string, b: number, bUnit: string): string {
  return b === 0 ? `${a}${aUnit}` : `${a}${aUnit}${b}${bUnit}`;
}

export function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return '-';
  if (bytes < 1024) return `${bytes}B`;
  if (bytes < 1024 ** 2) return `${(bytes / 1024).toFixed(1)}KiB`;
  return `${(bytes / 1024 ** 2).toFixed(1)}MiB`;
}
