import { join } from 'node:path';
import { findPlace } from '@sluice/agent/handoff/slot';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { InvalidArgumentError, Option } from 'commander';
import { ApiClient, DEFAULT_CONTROLLER } from './api-client.ts';
import { parseDuration } from './time.ts';

export function controllerOption(): Option {
  return new Option('--controller <url>', "the controller's API address")
    .env('SLUICE_CONTROLLER')
    .default(DEFAULT_CONTROLLER);
}

export function client(options: { readonly controller: string }): ApiClient {
  return new ApiClient(options.controller);
}

export function timeoutOption(fallback: string): Option {
  return new Option('--timeout <duration>', 'how long to wait')
    .argParser(duration)
    .default(parseDuration(fallback), fallback);
}

export function dirOption(): Option {
  return new Option('--dir <folder>', "the agent's run folder (default: slot-SLOT below --shared)").env('SLUICE_DIR');
}

/** Both containers of a Pod have the same options: without a folder of its own each slot has one in the shared volume. */
export function needDir(options: { readonly dir?: string; readonly shared?: string; readonly slot?: string }): string {
  if (options.dir !== undefined) return options.dir;
  const shared = options.shared ?? process.env.SLUICE_SHARED;
  if (shared) return join(shared, `slot-${options.slot ?? findPlace().slot}`);
  throw new SluiceError('CONFIG_INVALID', "expected the agent's run folder, found none", {
    hint: 'give it by --dir or SLUICE_DIR, or a shared one by SLUICE_SHARED',
  });
}

/** Parser of a flag whose value is a duration; milliseconds. */
export function duration(text: string): number {
  try {
    return parseDuration(text);
  } catch (thrown) {
    throw new InvalidArgumentError(toSluiceError(thrown).message);
  }
}

/** The same, where a bare number means seconds, as in a Pod's terminationGracePeriodSeconds. */
export function seconds(text: string): number {
  return duration(/^\d+$/.test(text) ? `${text}s` : text);
}

/** Parser of a flag whose value is a whole number within bounds. */
export function whole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d{1,15}$/.test(text) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}`);
  };
}
