import type { CheckResult } from '@sluice/contract';
import { Command } from 'commander';
import { exitOf } from '../lib/failure.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption, printList } from '../lib/output.ts';
import type { Plan } from '../program.ts';

interface Options {
  readonly to: string;
  readonly bootstrap?: string;
  readonly controller: string;
  readonly output: Format;
}

export function checkCommand(plan: Plan): Command {
  return new Command('check')
    .description('run the preflight of an upgrade and nothing else')
    .argument('<proxy>')
    .requiredOption('--to <version>', 'Envoy version, or path of a binary where the agent runs')
    .option('--bootstrap <file>', 'another bootstrap, where the agent runs')
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
        const failed = result.checks.find((c) => !c.ok);
        return result.ok ? 0 : exitOf(failed?.code ?? 'PREFLIGHT_BINARY');
      }),
    );
}

export function target(options: { readonly to: string; readonly bootstrap?: string }): {
  to: string;
  bootstrap?: string;
} {
  return { to: options.to, ...(options.bootstrap !== undefined && { bootstrap: options.bootstrap }) };
}

function checkColumns() {
  return [
    { title: 'CHECK', of: (c: CheckResult) => c.name },
    { title: 'RESULT', of: (c: CheckResult) => (c.ok ? 'ok' : 'FAILED') },
    { title: 'FOUND', of: (c: CheckResult) => c.found },
    { title: 'WHAT TO DO', of: (c: CheckResult) => (c.ok ? '' : (c.hint ?? '')) },
    { title: 'CODE', of: (c: CheckResult) => c.code ?? '', wide: true },
  ];
}
