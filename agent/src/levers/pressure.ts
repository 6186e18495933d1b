import { renameSync, writeFileSync } from 'node:fs';
import { FRESH_MS } from '@sluice/contract';
import { MAX_CONNECTION_DURATION } from '@sluice/contract/presets/index';

/** What the presets set where the user has set none. */
export const PRESET_DURATION_MS = Number.parseFloat(MAX_CONNECTION_DURATION) * 1_000;

/** Below this pressure the reduce_timeouts action is idle, at 1 it is saturated: the `scaled` trigger of the presets. */
const SCALING_THRESHOLD = 0.1;

/**
 * The pressure at which exactly the connections older than `ageMs` are told to leave. The action scales
 * `max_connection_duration` (durationMs) by 1 - (pressure - 0.1) / 0.9, so a connection's time is over when
 * age >= scale x duration. 0 = every connection. The scale is a float32: with 7 days its step is about 36 ms.
 */
export function pressureForCutoff(ageMs: number, durationMs: number): number {
  const scale = Math.min(1, Math.max(0, ageMs / durationMs));
  return SCALING_THRESHOLD + (1 - SCALING_THRESHOLD) * (1 - scale);
}

/** The pressure that tells all but the fresh ones, and each of those when it is fresh no more. */
export function pressureForAll(durationMs = PRESET_DURATION_MS): number {
  return pressureForCutoff(FRESH_MS, durationMs);
}

/** The age that a pressure stands for, ms; undefined: it tells nobody. The inverse of pressureForCutoff. */
export function ageOfPressure(pressure: number, durationMs: number): number | undefined {
  if (!(pressure > SCALING_THRESHOLD)) return undefined;
  return durationMs * Math.max(0, 1 - (pressure - SCALING_THRESHOLD) / (1 - SCALING_THRESHOLD));
}

/**
 * Sets the pressure of one epoch. By rename: Envoy's injected_resource monitor watches the folder for a moved-in file and
 * reads nothing on a write in place (source/extensions/resource_monitors/injected_resource).
 */
export function writePressure(file: string, pressure: number): void {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, pressure.toPrecision(17));
  renameSync(temporary, file);
}
