import { Command } from 'commander';
import { print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption } from '../lib/output.ts';
import type { Plan } from '../program.ts';
import { printUpgrade } from '../view/upgrade.ts';

export function abortCommand(plan: Plan): Command {
  return new Command('abort')
    .description('give an upgrade up; the epoch that serves goes on')
    .argument('<upgrade>', 'its id, or the proxy')
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((reference: string, options: { controller: string; output: Format }) =>
      plan(async (io) => {
        const api = client(options);
        const { id } = await api.find(reference);
        const upgrade = await api.abort(id);
        if (!(await printUpgrade(io, options.output, upgrade)))
          print(io, `upgrade ${id}: ${upgrade.phase}: ${upgrade.reason}`);
        return 0;
      }),
    );
}
