import { Command } from 'commander';
import { followUpgrade } from '../lib/follow.ts';
import { print } from '../lib/io.ts';
import { client, controllerOption, timeoutOption } from '../lib/options.ts';
import { type Format, outputOption } from '../lib/output.ts';
import type { Plan } from '../program.ts';
import { printUpgrade } from '../view/upgrade.ts';

interface Options {
  readonly controller: string;
  readonly output: Format;
  readonly wait?: boolean;
  readonly timeout: number;
}

export function rollbackCommand(plan: Plan): Command {
  return new Command('rollback')
    .description('go back to the version that served before, by an upgrade the other way')
    .argument('<upgrade>', 'its id, or the proxy')
    .option('--wait', 'until it has ended')
    .addOption(timeoutOption('30m'))
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((reference: string, options: Options) =>
      plan(async (io) => {
        const api = client(options);
        const { id } = await api.find(reference);
        const upgrade = await api.rollback(id);
        if (options.wait === true) return followUpgrade(io, api, upgrade, options);
        if (!(await printUpgrade(io, options.output, upgrade))) {
          print(
            io,
            `upgrade ${upgrade.id}: ${upgrade.phase}: ${upgrade.reason}; follow it by: sluice get ${upgrade.proxy} -w`,
          );
        }
        return 0;
      }),
    );
}
