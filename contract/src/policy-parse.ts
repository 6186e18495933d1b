import { SluiceError } from './errors.ts';
import { DEFAULT_POLICY, type DrainPolicy, type PolicyPatch } from './policy.ts';

/** Timers further away than this overflow the 32 bits that Node and Envoy give them. */
export const MAX_DURATION_MS = 2_147_483_647;
const AT_DEADLINE = ['wait', 'ask', 'reset'] as const;

/**
 * A drain policy out of parsed JSON or YAML: the base with the given values replaced. Throws CONFIG_INVALID naming the
 * first wrong field by its path; a field that does not exist is wrong too, for it is most likely misspelt.
 */
export function parsePolicy(value: unknown, base: DrainPolicy = DEFAULT_POLICY): DrainPolicy {
  if (value === undefined || value === null) return base;
  const given = object(value, 'policy');
  known(given, 'policy', Object.keys(DEFAULT_POLICY));
  return {
    http2: { goaway: flag(given.http2, 'policy.http2', 'goaway', base.http2.goaway) },
    http1: {
      silentIdleGraceMs: group(given.http1, 'policy.http1', 'silentIdleGraceMs', (field, path) =>
        duration(field, path, base.http1.silentIdleGraceMs),
      ),
    },
    upgrades: { protect: flag(given.upgrades, 'policy.upgrades', 'protect', base.upgrades.protect) },
    tcp: { protect: flag(given.tcp, 'policy.tcp', 'protect', base.tcp.protect) },
    maxDrainMs: duration(given.maxDrainMs, 'policy.maxDrainMs', base.maxDrainMs),
    atDeadline: choice(given.atDeadline, 'policy.atDeadline', base.atDeadline),
  };
}

/** The base with a patch laid over it. */
export function mergePolicy(base: DrainPolicy, patch: PolicyPatch | undefined): DrainPolicy {
  return parsePolicy(patch, base);
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(path, 'an object', value);
}

function known(given: Record<string, unknown>, path: string, fields: readonly string[]): void {
  for (const field of Object.keys(given)) {
    if (!fields.includes(field)) {
      throw new SluiceError('CONFIG_INVALID', `${path}.${field}: no such field; there are ${fields.join(', ')}`);
    }
  }
}

/** A group of one field: the field's value by `read`, which also gets undefined when group or field is absent. */
function group<T>(value: unknown, path: string, field: string, read: (value: unknown, path: string) => T): T {
  const given = value === undefined ? {} : object(value, path);
  known(given, path, [field]);
  return read(given[field], `${path}.${field}`);
}

function flag(value: unknown, path: string, field: string, base: boolean): boolean {
  return group(value, path, field, (one, at) => {
    if (one === undefined) return base;
    if (typeof one !== 'boolean') throw wrong(at, 'true or false', one);
    return one;
  });
}

function duration(value: unknown, path: string, base: number): number {
  if (value === undefined) return base;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > MAX_DURATION_MS) {
    throw wrong(path, `whole milliseconds from 0 to ${MAX_DURATION_MS}`, value);
  }
  return value;
}

function choice(value: unknown, path: string, base: DrainPolicy['atDeadline']): DrainPolicy['atDeadline'] {
  if (value === undefined) return base;
  const found = AT_DEADLINE.find((one) => one === value);
  if (found === undefined) throw wrong(path, `one of ${AT_DEADLINE.join(', ')}`, value);
  return found;
}

function wrong(path: string, expected: string, found: unknown): SluiceError {
  const text = JSON.stringify(found) ?? String(found);
  const short = text.length > 60 ? `${text.slice(0, 60)}...` : text;
  return new SluiceError('CONFIG_INVALID', `${path}: expected ${expected}, found ${short}`);
}
