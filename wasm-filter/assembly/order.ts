// The drain order as far as the filter needs it; the raw bytes are relayed to the agent, which checks all of it.

import { warn } from './abi';
import { same } from './bytes';
import { TopLevel } from './json';

/** As in contract/src/report.ts. */
export const MAX_ORDER_BYTES: i32 = 32 * 1024;

/** An order of this epoch is in force: connections are being told to leave. */
export let draining: bool = false;
/** Version of the newest order, 0 = none yet. */
export let version: u64 = 0;
/** Its JSON until the agent acknowledges it, then empty. */
export let unacknowledged: ArrayBuffer = new ArrayBuffer(0);
/** Its JSON, empty = no order yet (version 0 is one that the agent itself gave). */
let newest: ArrayBuffer = new ArrayBuffer(0);

const stop = String.UTF8.encode('stop');
const drain = String.UTF8.encode('drain');

/**
 * Takes an order if it is for this epoch and newer than the one in force. Returns true when it was taken. Wrong input is
 * logged and ignored: refusing the configuration would make Envoy reject the filter, and the drain is the agent's in the end.
 */
export function take(json: ArrayBuffer, epoch: u32): bool {
  if (json.byteLength == 0) return false;
  if (json.byteLength > MAX_ORDER_BYTES) {
    warn('sluice: drain order ignored: larger than ' + MAX_ORDER_BYTES.toString() + ' bytes');
    return false;
  }
  const object = new TopLevel(json);
  const forEpoch = object.integer('epoch');
  const newVersion = object.integer('version');
  const action = object.text_('action');
  const isStop = same(action, stop);
  if (forEpoch < 0 || newVersion < 0 || (!isStop && !same(action, drain))) {
    warn('sluice: drain order ignored: epoch, version or action missing or wrong');
    return false;
  }
  if (<u64>forEpoch != <u64>epoch) {
    warn('sluice: drain order ignored: for epoch ' + forEpoch.toString() + ', this is ' + epoch.toString());
    return false;
  }
  // Each worker and each listener that uses the resource configures it once more: the same version is no news.
  if (newest.byteLength > 0 && <u64>newVersion <= version) return false;
  version = <u64>newVersion;
  draining = !isStop;
  newest = json;
  unacknowledged = json;
  return true;
}

export function acknowledge(acknowledged: u64): void {
  if (acknowledged == version) unacknowledged = new ArrayBuffer(0);
}

/** Relays the order once more: the agent is a new one. */
export function repeat(): void {
  unacknowledged = newest;
}
