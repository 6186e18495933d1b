import { ageCutoffOf } from '@sluice/contract/presets/index';

/**
 * The max_connection_duration of an epoch's HTTP connection managers, as Envoy itself has them: the age cut-off works by
 * scaling it, so it must be one and the same everywhere, wherever its listeners came from.
 */
export interface Durations {
  /** undefined: no connection manager, or they differ, or one has none. */
  readonly durationMs?: number;
  readonly why?: string;
}

const TIMEOUT_MS = 3_000;

export async function readDurations(admin: {
  get(path: string, timeoutMs?: number): Promise<string>;
}): Promise<Durations> {
  const dumps: unknown[] = [];
  for (const resource of ['static_listeners', 'dynamic_listeners']) {
    try {
      dumps.push(JSON.parse(await admin.get(`/config_dump?resource=${resource}`, TIMEOUT_MS)));
    } catch (error) {
      // "not found" is Envoy's answer where there is none of the kind.
      if (/404|not found/i.test((error as Error).message)) continue;
      return { why: (error as Error).message };
    }
  }
  const found = ageCutoffOf(dumps);
  if (found === undefined) return { why: 'no HTTP connection manager' };
  if (found.ageCutoff === 'exact') return { durationMs: found.durationMs };
  return { why: 'the connection managers differ in max_connection_duration, or one has none' };
}
