import { Command } from 'commander';
import { followUpgrade } from '../lib/follow.ts';
import { print } from '../lib/io.ts';
import { client, controllerOption, timeoutOption } from '../lib/options.ts';
import { type Format, outputOption } from '../lib/output.ts';
import { policyOption, readPolicy, type TargetOptions, target, targetOptions } from '../lib/target.ts';
import type { Plan } from '../program.ts';
import { printUpgrade } from '../view/upgrade.ts';

interface Options extends TargetOptions {
  readonly policy?: string;
  readonly slot?: string;
  readonly wait?: boolean;
  readonly timeout: number;
  readonly controller: string;
  readonly output: Format;
}

export function upgradeCommand(plan: Plan): Command {
  return targetOptions(
    new Command('upgrade').description('upgrade a proxy to another Envoy, by a new epoch').argument('<proxy>'),
  )
    .addOption(policyOption())
    .option('--slot <slot>', 'whose agent starts the new epoch (default: chosen by the controller)')
    .option('--wait', 'until it has ended')
    .addOption(timeoutOption('30m'))
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: Options) =>
      plan(async (io) => {
        const policy = await readPolicy(options.policy);
        const api = client(options);
        const upgrade = await api.create({
          proxy,
          ...target(options),
          ...(policy !== undefined && { policy }),
          ...(options.slot !== undefined && { slot: options.slot }),
        });
        if (options.wait === true) return followUpgrade(io, api, upgrade, options);
        if (!(await printUpgrade(io, options.output, upgrade))) {
          print(io, `upgrade ${upgrade.id} of ${proxy} has begun; follow it by: sluice get ${proxy} -w`);
        }
        return 0;
      }),
    );
}
