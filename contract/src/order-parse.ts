import { SluiceError } from './errors.ts';
import type { DrainOrder } from './order.ts';
import { parsePolicy } from './policy-parse.ts';

function wrong(field: string, expected: string, found: unknown): SluiceError {
  const text = JSON.stringify(found) ?? String(found);
  return new SluiceError('INPUT_INVALID', `drain order: ${field}: expected ${expected}, found ${text.slice(0, 60)}`);
}

function whole(value: unknown, field: string, min: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min) return value;
  throw wrong(field, `a whole number from ${min}`, value);
}

function pace(value: unknown): { readonly perSecond: number } {
  if (typeof value !== 'object' || value === null) throw wrong('pace', 'an object', value);
  const { perSecond } = value as Record<string, unknown>;
  if (typeof perSecond !== 'number' || !(perSecond > 0)) throw wrong('pace.perSecond', 'a number above 0', perSecond);
  return { perSecond };
}

/**
 * A drain order from its JSON. Throws INPUT_INVALID, or CONFIG_INVALID for its policy, naming the field. A field that is
 * not known is left out: the controller may be newer.
 */
export function parseDrainOrder(json: string): DrainOrder {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new SluiceError('INPUT_INVALID', `drain order: expected JSON, found ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong('it', 'an object', value);
  const given = value as Record<string, unknown>;
  if (given.v !== 1) throw wrong('v', '1', given.v);
  if (typeof given.upgradeId !== 'string' || given.upgradeId.length === 0 || given.upgradeId.length > 256)
    throw wrong('upgradeId', 'a string of 1 to 256 characters', given.upgradeId);
  if (given.action !== 'drain' && given.action !== 'stop') throw wrong('action', 'drain or stop', given.action);
  if (given.policy === undefined || given.policy === null) throw wrong('policy', 'an object', given.policy);
  return {
    v: 1,
    upgradeId: given.upgradeId,
    epoch: whole(given.epoch, 'epoch', 0),
    version: whole(given.version, 'version', 0),
    action: given.action,
    policy: parsePolicy(given.policy),
    cutoffAgeMs: whole(given.cutoffAgeMs, 'cutoffAgeMs', 0),
    ...(given.pace !== undefined && { pace: pace(given.pace) }),
    issuedAt: whole(given.issuedAt, 'issuedAt', 0),
  };
}
