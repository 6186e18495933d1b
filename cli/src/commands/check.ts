import { Command } from 'commander';
import { checkColumns, exitOfChecks } from '../lib/checks.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption, printList } from '../lib/output.ts';
import { type TargetOptions, target, targetOptions } from '../lib/target.ts';
import type { Plan } from '../program.ts';

interface Options extends TargetOptions {
  readonly controller: string;
  readonly output: Format;
}

export function checkCommand(plan: Plan): Command {
  return targetOptions(
    new Command('check').description('run the preflight of an upgrade and nothing else').argument('<proxy>'),
  )
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: Options) =>
      plan(async (io) => {
        const result = await client(options).check(proxy, target(options));
        await printList(io, options.output, result.checks, {
          columns: checkColumns(),
          name: (c) => c.name,
          whole: result,
          empty: 'nothing was checked',
        });
        return exitOfChecks(result);
      }),
    );
}
