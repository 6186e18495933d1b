import type { EpochStatus } from '@sluice/contract';
import { Command } from 'commander';
import { print } from '../../lib/io.ts';
import { waitForAgent } from '../../lib/local-client.ts';
import { dirOption, needDir, timeoutOption } from '../../lib/options.ts';
import type { Plan } from '../../program.ts';

type Waited = Partial<EpochStatus> & {
  readonly role?: string;
  readonly peer?: string;
  readonly handedTo?: { readonly epoch: number; readonly slot: string };
};

export function waitCommand(plan: Plan): Command {
  return new Command('wait')
    .description('wait until the newest epoch of the agent serves; for a postStart hook')
    .addOption(dirOption())
    .addOption(timeoutOption('2m'))
    .action((options: { dir?: string; timeout: number }) =>
      plan(async (io) => {
        print(io, textOf((await waitForAgent(needDir(options), options.timeout)) as Waited));
        return 0;
      }),
    );
}

function textOf({ epoch, version, slot, handedTo, peer }: Waited): string {
  if (epoch !== undefined) return `epoch ${epoch} (${version}) of slot ${slot} serves`;
  if (handedTo) return `slot ${slot} does not serve: epoch ${handedTo.epoch} of slot ${handedTo.slot} does`;
  return `slot ${slot} stands by: slot ${peer} has the newer version`;
}
