import { SluiceError } from './errors.ts';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_STRATEGY,
  type IntOrPercent,
  type RolloutAnalysis,
  type RolloutSelector,
  type RolloutStrategy,
} from './rollout.ts';

const MAX_ITEMS = 1_000;
const MAX_PAUSE_MS = 2_147_483_647;

type Given = Record<string, unknown>;

/** Which proxies, out of parsed JSON or YAML. Throws CONFIG_INVALID naming the first wrong field by its path. */
export function parseSelector(value: unknown): RolloutSelector {
  const given = object(value ?? {}, 'selector', ['proxies', 'labels']);
  const proxies = given.proxies === undefined ? [] : globs(given.proxies, 'selector.proxies');
  const labels = Object.entries(object(given.labels ?? {}, 'selector.labels'));
  if (proxies.length === 0 && labels.length === 0)
    wrong('selector', 'proxies or labels (`*` for all proxies)', value ?? 'none');
  return {
    proxies,
    labels: Object.fromEntries(labels.map(([key, one]) => [key, text(one, `selector.labels.${key}`)])),
  };
}

export function parseStrategy(value: unknown): RolloutStrategy {
  const given = object(value ?? {}, 'strategy', Object.keys(DEFAULT_STRATEGY));
  const or = <K extends keyof RolloutStrategy>(key: K, read: (value: unknown, path: string) => RolloutStrategy[K]) =>
    given[key] === undefined ? DEFAULT_STRATEGY[key] : read(given[key], `strategy.${key}`);
  const strategy: RolloutStrategy = {
    partition: or('partition', part),
    maxUnavailable: or('maxUnavailable', part),
    canary: or('canary', (one, path) => (Array.isArray(one) ? globs(one, path) : part(one, path))),
    batches: or('batches', (one, path) => list(one, path).map((item, n) => part(item, `${path}[${n}]`))),
    pauseBetweenMs: or('pauseBetweenMs', (one, path) => whole(one, path, MAX_PAUSE_MS)),
    promotion: or('promotion', (one, path) => oneOf(one, path, ['auto', 'manual'])),
    spread: or('spread', (one, path) => (one === '' ? '' : text(one, path))),
    until: or('until', (one, path) => oneOf(one, path, ['serving', 'reset'])),
  };
  // As with a Deployment: nothing could ever be started.
  if (/^0+%?$/.test(String(strategy.maxUnavailable))) wrong('strategy.maxUnavailable', 'more than 0', 0);
  return strategy;
}

export function parseAnalysis(value: unknown): RolloutAnalysis {
  const given = object(value ?? {}, 'analysis', Object.keys(DEFAULT_ANALYSIS));
  const limit = (key: Exclude<keyof RolloutAnalysis, 'onFailure' | 'windowMs'>): number | null => {
    const one = given[key];
    if (one === undefined) return DEFAULT_ANALYSIS[key];
    return one === null ? null : whole(one, `analysis.${key}`, Number.MAX_SAFE_INTEGER);
  };
  return {
    maxFailedUpgrades: limit('maxFailedUpgrades'),
    maxCrashes: limit('maxCrashes'),
    maxCutConnections: limit('maxCutConnections'),
    maxFailedRequests: limit('maxFailedRequests'),
    maxP99Ms: limit('maxP99Ms'),
    windowMs: given.windowMs === undefined ? DEFAULT_ANALYSIS.windowMs : windowOf(given.windowMs),
    onFailure:
      given.onFailure === undefined
        ? DEFAULT_ANALYSIS.onFailure
        : oneOf(given.onFailure, 'analysis.onFailure', ['pause', 'rollback']),
  };
}

/** Less than a second holds no sample of any source. */
function windowOf(value: unknown): number {
  const found = whole(value, 'analysis.windowMs', MAX_PAUSE_MS);
  return found < 1_000 ? wrong('analysis.windowMs', 'at least 1000', value) : found;
}

/** A whole number from 0, also as text, or a percentage from 0% to 100%. */
export function part(value: unknown, path: string): IntOrPercent {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  if (typeof value === 'string' && /^\d{1,9}$/.test(value)) return Number(value);
  if (typeof value === 'string' && /^\d{1,3}%$/.test(value) && Number.parseInt(value, 10) <= 100) return value;
  return wrong(path, 'a whole number from 0 or a percentage up to 100%', value);
}

function object(value: unknown, path: string, fields?: readonly string[]): Given {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong(path, 'an object', value);
  const unknown = fields && Object.keys(value).find((key) => !fields.includes(key));
  if (unknown !== undefined) wrong(`${path}.${unknown}`, `one of ${fields?.join(', ')}`, unknown);
  return value as Given;
}

function list(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > MAX_ITEMS) return wrong(path, `a list of at most ${MAX_ITEMS}`, value);
  return value;
}

function globs(value: unknown, path: string): readonly string[] {
  return list(value, path).map((one, n) => text(one, `${path}[${n}]`));
}

function text(value: unknown, path: string): string {
  if (typeof value !== 'string' || value === '' || value.length > 253) return wrong(path, 'a name', value);
  return value;
}

function whole(value: unknown, path: string, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max)
    return wrong(path, `a whole number from 0 to ${max}`, value);
  return value;
}

function oneOf<T extends string>(value: unknown, path: string, words: readonly T[]): T {
  const found = words.find((one) => one === value);
  return found ?? wrong(path, `one of ${words.join(', ')}`, value);
}

function wrong(path: string, expected: string, found: unknown): never {
  throw new SluiceError(
    'CONFIG_INVALID',
    `${path}: expected ${expected}, found ${JSON.stringify(found)?.slice(0, 200)}`,
  );
}
