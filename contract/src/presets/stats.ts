import { field, isObject, type Json, objects, withField } from './environment.ts';

/** The stats that the admin witness reads: open connections and requests in flight. */
const WITNESSED = String.raw`^(listener\..*\.downstream_cx_active|http\..*\.downstream_rq_active)$`;

/**
 * A stats matcher may leave out what the admin witness reads (Istio's bootstraps have one): an inclusion list gets two
 * patterns more, anything else is left to the user, with a warning.
 */
export function withStats(bootstrap: Json, warnings: string[]): Json {
  const stats = field(bootstrap, 'stats_config');
  const matcher = isObject(stats) ? field(stats, 'stats_matcher') : undefined;
  if (!isObject(stats) || !isObject(matcher)) return bootstrap;
  const inclusion = field(matcher, 'inclusion_list');
  if (!isObject(inclusion)) {
    const excludes = field(matcher, 'exclusion_list') !== undefined || field(matcher, 'reject_all') === true;
    if (excludes) warnings.push('stats_config: without downstream_cx_active the admin can not witness a drain');
    return bootstrap;
  }
  const patterns = objects(inclusion.patterns);
  const regexOf = (p: Json) => field((field(p, 'safe_regex') as Json | undefined) ?? {}, 'regex');
  if (patterns.some((p) => regexOf(p) === WITNESSED)) return bootstrap;
  const included = { ...inclusion, patterns: [...patterns, { safe_regex: { regex: WITNESSED } }] };
  return withField(
    bootstrap,
    'stats_config',
    withField(stats, 'stats_matcher', withField(matcher, 'inclusion_list', included)),
  );
}
