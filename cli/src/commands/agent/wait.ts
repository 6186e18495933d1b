import { Command } from 'commander';
import { waitForAgent } from '../../lib/local-client.ts';
import { dirOption, needDir, timeoutOption } from '../../lib/options.ts';
import type { Plan } from '../../program.ts';

export function waitCommand(plan: Plan): Command {
  return new Command('wait')
    .description('wait until the newest epoch of the agent serves; for a postStart hook')
    .addOption(dirOption())
    .addOption(timeoutOption('2m'))
    .action((options: { dir?: string; timeout: number }) =>
      plan(async () => {
        await waitForAgent(needDir(options), options.timeout);
        return 0;
      }),
    );
}
