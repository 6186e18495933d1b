import { userInfo } from 'node:os';
import { type ResetRequest, SluiceError } from '@sluice/contract';
import { Command } from 'commander';
import { print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption } from '../lib/output.ts';
import type { Plan } from '../program.ts';
import { printUpgrade } from '../view/upgrade.ts';

interface Options {
  readonly override?: boolean;
  readonly reason?: string;
  readonly by?: string;
  readonly controller: string;
  readonly output: Format;
}

export function resetCommand(plan: Plan): Command {
  return new Command('reset')
    .description('end the old epoch now')
    .argument('<upgrade>', 'its id, or the proxy')
    .option('--override', 'although protected connections are left; see `sluice explain` for what it cuts')
    .option('--reason <text>', 'why, for the record')
    .option('--by <name>', 'who, for the record (default: the user)')
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((reference: string, options: Options) =>
      plan(async (io) => {
        const request = overrideOf(options);
        const api = client(options);
        const { id } = await api.find(reference);
        const upgrade = await api.reset(id, request);
        if (!(await printUpgrade(io, options.output, upgrade)))
          print(io, `upgrade ${id}: ${upgrade.phase}: ${upgrade.reason}`);
        return 0;
      }),
    );
}

/** The recorded override, or none. Throws CONFIG_INVALID when a reason is missing. */
export function overrideOf(options: {
  readonly override?: boolean;
  readonly reason?: string;
  readonly by?: string;
}): ResetRequest {
  if (options.override !== true) return {};
  if (options.reason === undefined || options.reason.trim() === '') {
    throw new SluiceError('CONFIG_INVALID', 'expected a reason for the override, found none', {
      hint: 'say why by --reason; it is recorded',
    });
  }
  return { override: { by: options.by ?? userName(), reason: options.reason } };
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A container may run as a uid that has no name.
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}
