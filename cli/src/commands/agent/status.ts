import type { EpochStatus } from '@sluice/contract';
import { Command } from 'commander';
import { callAgent } from '../../lib/local-client.ts';
import { dirOption, needDir } from '../../lib/options.ts';
import { type Format, outputOption, printList } from '../../lib/output.ts';
import { formatSpan } from '../../lib/time.ts';
import type { Plan } from '../../program.ts';

export function statusCommand(plan: Plan): Command {
  return new Command('status')
    .description('show the epochs of the agent on this machine')
    .addOption(dirOption())
    .addOption(outputOption())
    .action((options: { dir?: string; output: Format }) =>
      plan(async (io) => {
        const whole = (await callAgent(needDir(options), 'GET', '/v1/status')) as { epochs?: readonly EpochStatus[] };
        const now = Date.now();
        await printList(io, options.output, whole.epochs ?? [], {
          columns: [
            { title: 'EPOCH', of: (e) => String(e.epoch) },
            { title: 'STATE', of: (e) => e.state },
            { title: 'VERSION', of: (e) => e.version },
            { title: 'PID', of: (e) => String(e.pid) },
            { title: 'AGE', of: (e) => formatSpan(now - e.startedAt) },
            { title: 'PROTECTED', of: (e) => (e.verdict ? `${e.verdict.protected} of ${e.verdict.total}` : '-') },
            { title: 'VERDICT', of: (e) => e.verdict?.summary ?? '-', wide: true },
            { title: 'UPGRADE', of: (e) => e.upgradeId ?? '-', wide: true },
          ],
          name: (e) => String(e.epoch),
          whole,
          empty: 'no epochs yet',
        });
        return 0;
      }),
    );
}
