import type { CheckView, PlanNote } from '@sluice/contract';
import { Command } from 'commander';
import { checkColumns, exitOfChecks } from '../lib/checks.ts';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption, printList } from '../lib/output.ts';
import { clean } from '../lib/table.ts';
import { policyOption, readPolicy, type TargetOptions, target, targetOptions } from '../lib/target.ts';
import type { Plan } from '../program.ts';

interface Options extends TargetOptions {
  readonly policy?: string;
  readonly controller: string;
  readonly output: Format;
}

export function planCommand(plan: Plan): Command {
  return targetOptions(
    new Command('plan')
      .description('the preflight of an upgrade, how it would hand over, and what two live epochs would mean')
      .argument('<proxy>'),
  )
    .addOption(policyOption())
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: Options) =>
      plan(async (io) => {
        const policy = await readPolicy(options.policy);
        const view = await client(options).check(proxy, target(options), policy);
        const forPeople = options.output === 'table' || options.output === 'wide';
        if (forPeople) print(io, `${headline(view, options)}\n\n`);
        await printList(io, options.output, view.checks, {
          columns: checkColumns(),
          name: (c) => c.name,
          whole: view,
          empty: 'nothing was checked',
        });
        if (forPeople) printNotes(io, view.notes ?? []);
        return exitOfChecks(view);
      }),
    );
}

function headline({ proxy, ok, checks }: CheckView, { to }: Options): string {
  const method = checks.find((c) => c.name === 'method');
  const by = method?.ok ? ` by ${method.found}` : '';
  const failed = checks.filter((c) => !c.ok).length;
  const verdict = ok ? `can be done${by}` : `can not be done: ${failed} of ${checks.length} checks failed`;
  return clean(`the upgrade of ${proxy} to ${to} ${verdict}`);
}

function printNotes(io: Io, notes: readonly PlanNote[]): void {
  if (notes.length === 0) return;
  print(io, '\nWhile both epochs live (! = otherwise than configured):');
  for (const { about, level, text } of notes) print(io, clean(`${level === 'warn' ? '!' : ' '} ${about}: ${text}`));
}
