import type { ScalarKind } from './schema.ts';

/** A value that does not have the form its field asks for; the caller adds the path. */
export class FormError extends Error {}

/** What stands there, in a few words for a person. */
export function shown(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  const text = typeof value === 'string' ? JSON.stringify(value) : `${typeof value} ${String(value)}`;
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const INT_RANGE: Readonly<Record<string, readonly [bigint, bigint]>> = {
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
};
const ALIAS: Readonly<Record<string, string>> = {
  sint32: 'int32',
  sfixed32: 'int32',
  fixed32: 'uint32',
  sint64: 'int64',
  sfixed64: 'int64',
  fixed64: 'uint64',
};

/** protobufjs takes a 64-bit value as a number or as its two halves. */
type Wide = number | { readonly low: number; readonly high: number; readonly unsigned: boolean };

function integer(kind: ScalarKind, value: unknown): Wide {
  const base = ALIAS[kind] ?? kind;
  const [least, most] = INT_RANGE[base]!;
  const whole =
    typeof value === 'number' ? Number.isInteger(value) : typeof value === 'string' && /^-?\d{1,20}$/.test(value);
  if (!whole) throw new FormError(`expected an integer, found ${shown(value)}`);
  const big = BigInt(value as number | string);
  if (big < least || big > most) throw new FormError(`expected ${least} to ${most}, found ${shown(value)}`);
  if (Number.isSafeInteger(Number(big))) return Number(big);
  const bits = BigInt.asUintN(64, big);
  return { low: Number(bits & 0xffffffffn) | 0, high: Number(bits >> 32n) | 0, unsigned: base === 'uint64' };
}

function float(value: unknown): number {
  if (typeof value === 'number') return value;
  if (value === 'NaN' || value === 'Infinity' || value === '-Infinity') return Number(value);
  if (typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value))) return Number(value);
  throw new FormError(`expected a number, found ${shown(value)}`);
}

function bytes(value: unknown): Buffer {
  if (typeof value !== 'string' || !/^[A-Za-z0-9+/_-]*={0,2}$/.test(value)) {
    throw new FormError(`expected base64, found ${shown(value)}`);
  }
  return Buffer.from(value, 'base64');
}

/** A JSON value in the form that the generated code encodes. Throws FormError. */
export function scalar(kind: ScalarKind, value: unknown): unknown {
  switch (kind) {
    case 'string':
      if (typeof value !== 'string') throw new FormError(`expected a string, found ${shown(value)}`);
      return value;
    case 'bool':
      if (typeof value !== 'boolean') throw new FormError(`expected true or false, found ${shown(value)}`);
      return value;
    case 'bytes':
      return bytes(value);
    case 'double':
    case 'float':
      return float(value);
    default:
      return integer(kind, value);
  }
}

const MAX_DURATION_S = 315_576_000_000;

/** `1.5s` -> { seconds, nanos }. */
export function duration(value: unknown): { seconds: number; nanos: number } {
  const match = typeof value === 'string' ? /^(-?)(\d{1,12})(?:\.(\d{1,9}))?s$/.exec(value) : null;
  if (match === null) throw new FormError(`expected a duration such as "1.5s", found ${shown(value)}`);
  const sign = match[1] === '-' ? -1 : 1;
  const seconds = Number(match[2]);
  if (seconds > MAX_DURATION_S)
    throw new FormError(`expected a duration of at most 10,000 years, found ${shown(value)}`);
  const nanos = Number((match[3] ?? '').padEnd(9, '0'));
  return { seconds: seconds === 0 ? 0 : sign * seconds, nanos: nanos === 0 ? 0 : sign * nanos };
}

/** RFC 3339 -> { seconds, nanos }. */
export function timestamp(value: unknown): { seconds: number; nanos: number } {
  const text = typeof value === 'string' ? value : '';
  const match = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)$/.exec(text);
  const ms = match === null ? Number.NaN : Date.parse(text);
  if (match === null || Number.isNaN(ms)) throw new FormError(`expected an RFC 3339 time, found ${shown(value)}`);
  return { seconds: Math.floor(ms / 1000), nanos: Number((match[1] ?? '').padEnd(9, '0')) };
}
