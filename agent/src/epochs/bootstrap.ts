import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { SluiceError } from '@sluice/contract';
import {
  type AgeCutoff,
  ageCutoffOf,
  type PresetEnvironment,
  withBootstrapPresets,
} from '@sluice/contract/presets/index';
import type { EpochFolder } from './folder.ts';
import { writeAtomically } from './folder.ts';

/** JSON is read without the YAML library, which would cost every agent some 10 MB for one file. */
function parseText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    const { parse } = createRequire(import.meta.url)('yaml') as typeof import('yaml');
    return parse(text);
  }
}

/** Reads a bootstrap in Envoy's own form, YAML or JSON. Throws CONFIG_INVALID with line and column. */
export function readBootstrap(file: string): Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SluiceError('CONFIG_INVALID', `expected a bootstrap at ${file}, found none that can be read`, { cause });
  }
  let value: unknown;
  try {
    value = parseText(text);
  } catch (cause) {
    throw new SluiceError('CONFIG_INVALID', `expected YAML or JSON in ${file}, found: ${(cause as Error).message}`, {
      cause,
    });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new SluiceError(
      'CONFIG_INVALID',
      `expected an object in ${file}, found ${Array.isArray(value) ? 'a list' : typeof value}`,
    );
  }
  return value as Record<string, unknown>;
}

/**
 * Writes the epoch's bootstrap: the user's with our presets. Returns their warnings, where the admin will listen, and what
 * the pressure can do to its static listeners (undefined: none of them is HTTP).
 */
export function writeBootstrap(
  folder: EpochFolder,
  source: string,
  environment: PresetEnvironment,
): { warnings: readonly string[]; adminAddress: string; cutoff: AgeCutoff | undefined } {
  const { value, warnings } = withBootstrapPresets(readBootstrap(source), environment);
  writeAtomically(folder.bootstrap, `${JSON.stringify(value)}\n`);
  return { warnings, adminAddress: adminAddressOf(value), cutoff: ageCutoffOf(value) };
}

/** Path of a pipe, or `host:port`. */
export function adminAddressOf(bootstrap: Record<string, unknown>): string {
  const address = (bootstrap.admin as { address?: Record<string, Record<string, unknown>> } | undefined)?.address;
  const pipe = address?.pipe?.path;
  if (typeof pipe === 'string') return pipe;
  const socket = address?.socket_address ?? address?.socketAddress;
  const port = socket?.port_value ?? socket?.portValue;
  if (typeof socket?.address === 'string' && typeof port === 'number') return `${socket.address}:${port}`;
  throw new SluiceError('CONFIG_INVALID', 'expected admin.address to be a pipe or a socket address, found neither');
}
