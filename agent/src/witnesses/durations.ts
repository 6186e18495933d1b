/**
 * The max_connection_duration of an epoch's HTTP connection managers, as Envoy itself has them: the age cut-off works by
 * scaling it, so it must be one and the same everywhere, wherever its listeners came from.
 */
export interface Durations {
  /** undefined: no connection manager, or they differ, or one has none. */
  readonly durationMs?: number;
  readonly why?: string;
}

const HCM = 'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager';
const TIMEOUT_MS = 3_000;

export async function readDurations(admin: {
  get(path: string, timeoutMs?: number): Promise<string>;
}): Promise<Durations> {
  const found = new Set<number | undefined>();
  for (const resource of ['static_listeners', 'dynamic_listeners']) {
    let dump: string;
    try {
      dump = await admin.get(`/config_dump?resource=${resource}`, TIMEOUT_MS);
    } catch (error) {
      // "not found" is Envoy's answer where there is none of the kind.
      if (/404|not found/i.test((error as Error).message)) continue;
      return { why: (error as Error).message };
    }
    collect(JSON.parse(dump), found);
  }
  if (found.size === 0) return { why: 'no HTTP connection manager' };
  if (found.size > 1) return { why: 'the connection managers differ in max_connection_duration' };
  const [only] = found;
  return only === undefined ? { why: 'the connection managers have no max_connection_duration' } : { durationMs: only };
}

/** Every connection manager in a config dump, as Any or as TypedStruct. Exported for its test. */
export function collect(value: unknown, found: Set<number | undefined>): void {
  if (Array.isArray(value)) {
    for (const one of value) collect(one, found);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  const object = value as Record<string, unknown>;
  const type = String(object['@type'] ?? '');
  if (type.endsWith(HCM)) found.add(durationOf(object));
  else if (type.endsWith('TypedStruct') && String(object.type_url).endsWith(HCM)) found.add(durationOf(object.value));
  for (const one of Object.values(object)) collect(one, found);
}

function durationOf(hcm: unknown): number | undefined {
  const options = either(hcm, 'common_http_protocol_options', 'commonHttpProtocolOptions');
  const text = either(options, 'max_connection_duration', 'maxConnectionDuration');
  const seconds = typeof text === 'string' && /^[\d.]+s$/.test(text) ? Number.parseFloat(text) : Number.NaN;
  return seconds > 0 ? seconds * 1_000 : undefined;
}

function either(value: unknown, snake: string, camel: string): unknown {
  const object = (value ?? {}) as Record<string, unknown>;
  return object[snake] ?? object[camel];
}
