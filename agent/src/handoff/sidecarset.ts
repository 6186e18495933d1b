import { SluiceError } from '@sluice/contract';

/**
 * The version pair that OpenKruise gives each of the two containers (S5): the own one and that of the peer. Integers that
 * only grow; "0" for the peer = no upgrade is under way; the larger one is the newer.
 */
export interface SidecarsetVersions {
  readonly own: number;
  readonly alt: number;
}

/** Undefined outside of a SidecarSet. Throws CONFIG_INVALID naming the variable. */
export function readSidecarsetVersions(
  env: Readonly<Record<string, string | undefined>>,
): SidecarsetVersions | undefined {
  const own = read(env, 'SIDECARSET_VERSION');
  if (own === undefined) return undefined;
  return { own, alt: read(env, 'SIDECARSET_VERSION_ALT') ?? 0 };
}

function read(env: Readonly<Record<string, string | undefined>>, name: string): number | undefined {
  const text = env[name];
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new SluiceError('CONFIG_INVALID', `expected ${name} to be a whole number, found ${JSON.stringify(text)}`);
}
