import { field, isObject, type Json } from './environment.ts';
import { isHcmType } from './hcm.ts';
import { takesPresets } from './listener.ts';

/**
 * What the pressure can do to an epoch's HTTP connections. `exact`: all its HTTP connection managers have this
 * max_connection_duration, so a cut-off by age can be computed. `all-only`: they differ, or one has none; full pressure
 * tells all connections whose manager has one, anything between would tell the wrong ones.
 */
export type AgeCutoff =
  | { readonly ageCutoff: 'exact'; readonly durationMs: number }
  | { readonly ageCutoff: 'all-only' };

/**
 * Reads the duration back out of what an Envoy runs: a merged bootstrap, a listener, or the admin's config dump, which
 * knows those that came by xDS too. What takes no presets (QUIC, internal listeners) does not count. Undefined when there
 * is no HTTP connection manager in it.
 */
export function ageCutoffOf(config: unknown): AgeCutoff | undefined {
  const durations = new Set<number | undefined>();
  collect(config, durations);
  if (durations.size === 0) return undefined;
  const [durationMs] = durations;
  return durations.size === 1 && durationMs !== undefined
    ? { ageCutoff: 'exact', durationMs }
    : { ageCutoff: 'all-only' };
}

function collect(value: unknown, into: Set<number | undefined>): void {
  if (Array.isArray(value)) for (const each of value) collect(each, into);
  if (!isObject(value) || (isListener(value) && !takesPresets(value))) return;
  if (isHcmType(value['@type'])) into.add(durationOf(value));
  else if (isHcmType(field(value, 'type_url')) && isObject(value.value)) into.add(durationOf(value.value));
  else for (const each of Object.values(value)) collect(each, into);
}

function isListener(value: Json): boolean {
  return ['filter_chains', 'default_filter_chain', 'api_listener'].some((f) => field(value, f) !== undefined);
}

/** Milliseconds; undefined when it has none, or none that is a duration in JSON (`604800s`, `0.5s`). */
function durationOf(hcm: Json): number | undefined {
  const common = field(hcm, 'common_http_protocol_options');
  const text = isObject(common) ? field(common, 'max_connection_duration') : undefined;
  const seconds = typeof text === 'string' ? /^(\d+(?:\.\d{1,9})?)s$/.exec(text)?.[1] : undefined;
  const ms = Math.round(Number(seconds ?? 0) * 1000);
  return ms > 0 ? ms : undefined;
}
