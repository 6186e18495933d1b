import { readFileSync } from 'node:fs';
import { PROTOCOL_VERSION } from '@sluice/contract';
import { Command } from 'commander';
import { print } from '../lib/io.ts';
import { type Format, outputOption, printData } from '../lib/output.ts';
import type { Plan } from '../program.ts';

export function versionCommand(plan: Plan): Command {
  return new Command('version')
    .description('print the version')
    .addOption(outputOption())
    .action((options: { output: Format }) =>
      plan(async (io) => {
        const found = { sluice: ownVersion(), protocol: PROTOCOL_VERSION, node: process.versions.node };
        if (await printData(io, options.output, found)) return 0;
        print(io, `sluice ${found.sluice} (protocol ${found.protocol}, node ${found.node})`);
        return 0;
      }),
    );
}

export function ownVersion(): string {
  // The same place from src/commands and from dist/commands.
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
