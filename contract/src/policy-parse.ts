import { PROTOCOLS } from './connections.ts';
import { SluiceError } from './errors.ts';
import {
  DEFAULT_POLICY,
  type DrainPolicy,
  MAX_RULES,
  type PolicyMatch,
  type PolicyPatch,
  type PolicyRule,
} from './policy.ts';
import { blockList } from './treatment.ts';

/** Timers further away than this overflow the 32 bits that Node and Envoy give them. */
export const MAX_DURATION_MS = 2_147_483_647;
/** With its policy an order has to fit into a filter report (MAX_ORDER_BYTES). */
const MAX_POLICY_BYTES = 24 * 1024;
const AT_DEADLINE = ['wait', 'ask', 'reset'] as const;
const RULE_FIELDS = ['name', 'match', 'nudge', 'protect', 'protectMs', 'silentIdleGraceMs', 'cutOrder', 'atDeadline'];
const MATCH_FIELDS = ['listeners', 'protocols', 'routes', 'peers'];

type Read<T> = (value: unknown, path: string) => T;

/**
 * A drain policy out of parsed JSON or YAML: the base with the given values replaced. Throws CONFIG_INVALID naming the
 * first wrong field by its path; a field that does not exist is wrong too, for it is most likely misspelt.
 */
export function parsePolicy(value: unknown, base: DrainPolicy = DEFAULT_POLICY): DrainPolicy {
  if (value === undefined || value === null) return base;
  const given = object(value, 'policy');
  known(given, 'policy', Object.keys(DEFAULT_POLICY));
  const group = <K extends 'http1' | 'http2' | 'upgrades' | 'tcp' | 'memory' | 'pacing'>(
    name: K,
    fields: { readonly [F in keyof DrainPolicy[K]]: Read<DrainPolicy[K][F]> },
  ): DrainPolicy[K] => fieldsOf(given[name], `policy.${name}`, base[name], fields);
  const policy: DrainPolicy = {
    http2: group('http2', { goaway: flag }),
    http1: group('http1', { silentIdleGraceMs: duration }),
    upgrades: group('upgrades', { protect: flag }),
    tcp: group('tcp', { protect: flag }),
    maxDrainMs: or(given.maxDrainMs, 'policy.maxDrainMs', base.maxDrainMs, duration),
    atDeadline: or(given.atDeadline, 'policy.atDeadline', base.atDeadline, oneOf(AT_DEADLINE)),
    memory: group('memory', { budgetMiB: whole(0, 1_048_576) }),
    pacing: group('pacing', {
      perSecond: whole(0, 1_000_000),
      order: oneOf(['oldest', 'idlest'] as const),
      scope: oneOf(['proxy', 'fleet'] as const),
      adapt: flag,
    }),
    rules: or(given.rules, 'policy.rules', base.rules, rules),
  };
  const size = Buffer.byteLength(JSON.stringify(policy));
  if (size > MAX_POLICY_BYTES) {
    throw new SluiceError(
      'CONFIG_INVALID',
      `policy: expected at most ${MAX_POLICY_BYTES} bytes of JSON, found ${size}`,
    );
  }
  return policy;
}

/** The base with a patch laid over it. A patch's rules take the place of the base's. */
export function mergePolicy(base: DrainPolicy, patch: PolicyPatch | undefined): DrainPolicy {
  return parsePolicy(patch, base);
}

function rules(value: unknown, path: string): readonly PolicyRule[] {
  const items = list(value, path, MAX_RULES);
  const parsed = items.map((item, n) => rule(item, `${path}[${n}]`));
  parsed.forEach(({ name }, n) => {
    if (parsed.findIndex((other) => other.name === name) !== n) {
      throw new SluiceError('CONFIG_INVALID', `${path}[${n}].name: ${JSON.stringify(name)} names another rule already`);
    }
  });
  return parsed;
}

function rule(value: unknown, path: string): PolicyRule {
  const given = object(value, path);
  known(given, path, RULE_FIELDS);
  const optional = <T>(field: string, read: Read<T>): { [key: string]: T } =>
    given[field] === undefined ? {} : { [field]: read(given[field], `${path}.${field}`) };
  return {
    name: text(given.name, `${path}.name`),
    match: match(given.match, `${path}.match`),
    ...optional('nudge', flag),
    ...optional('protect', flag),
    ...optional('protectMs', duration),
    ...optional('silentIdleGraceMs', duration),
    ...optional('cutOrder', whole(0, 1_000_000)),
    ...optional('atDeadline', oneOf(AT_DEADLINE)),
  };
}

function match(value: unknown, path: string): PolicyMatch {
  const given = object(value, path);
  known(given, path, MATCH_FIELDS);
  const optional = <T>(field: string, read: Read<T>): { [key: string]: readonly T[] } => {
    if (given[field] === undefined) return {};
    const items = list(given[field], `${path}.${field}`, 256);
    if (items.length === 0) throw wrong(`${path}.${field}`, 'at least one entry', items);
    return { [field]: items.map((item, n) => read(item, `${path}.${field}[${n}]`)) };
  };
  return {
    ...optional('listeners', text),
    ...optional('protocols', oneOf(PROTOCOLS)),
    ...optional('routes', text),
    ...optional('peers', block),
  };
}

function block(value: unknown, path: string): string {
  const found = text(value, path);
  try {
    blockList([found]);
    return found;
  } catch {
    throw wrong(path, 'an IP address or a CIDR block', value);
  }
}

/** A group's fields, each the given one or the base's. */
function fieldsOf<T extends object>(
  value: unknown,
  path: string,
  base: T,
  reads: { readonly [F in keyof T]: Read<T[F]> },
): T {
  if (value === undefined) return base;
  const given = object(value, path);
  known(given, path, Object.keys(reads));
  const result = { ...base };
  for (const field of Object.keys(reads) as (keyof T & string)[]) {
    result[field] = or(given[field], `${path}.${field}`, base[field], reads[field]);
  }
  return result;
}

function or<T>(value: unknown, path: string, base: T, read: Read<T>): T {
  return value === undefined ? base : read(value, path);
}

function object(value: unknown, path: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw wrong(path, 'an object', value);
}

function list(value: unknown, path: string, max: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= max) return value;
  throw wrong(path, `a list of at most ${max} entries`, value);
}

function known(given: Record<string, unknown>, path: string, fields: readonly string[]): void {
  for (const field of Object.keys(given)) {
    if (!fields.includes(field)) {
      throw new SluiceError('CONFIG_INVALID', `${path}.${field}: no such field; there are ${fields.join(', ')}`);
    }
  }
}

function flag(value: unknown, path: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrong(path, 'true or false', value);
}

function text(value: unknown, path: string): string {
  if (typeof value === 'string' && value.length > 0 && value.length <= 256) return value;
  throw wrong(path, 'a text of 1 to 256 characters', value);
}

function whole(min: number, max: number): Read<number> {
  return (value, path) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
    throw wrong(path, `a whole number from ${min} to ${max}`, value);
  };
}

function duration(value: unknown, path: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_DURATION_MS) return value;
  throw wrong(path, `whole milliseconds from 0 to ${MAX_DURATION_MS}`, value);
}

function oneOf<T extends string>(choices: readonly T[]): Read<T> {
  return (value, path) => {
    const found = choices.find((one) => one === value);
    if (found === undefined) throw wrong(path, `one of ${choices.join(', ')}`, value);
    return found;
  };
}

function wrong(path: string, expected: string, found: unknown): SluiceError {
  const shown = JSON.stringify(found) ?? String(found);
  const short = shown.length > 60 ? `${shown.slice(0, 60)}...` : shown;
  return new SluiceError('CONFIG_INVALID', `${path}: expected ${expected}, found ${short}`);
}
