import type { EndReport } from '@sluice/agent/handoff/end-report';
import { SluiceError, toSluiceError } from '@sluice/contract';
import { Command } from 'commander';
import { print } from '../../lib/io.ts';
import { callAgent } from '../../lib/local-client.ts';
import { dirOption, needDir, timeoutOption } from '../../lib/options.ts';
import type { Plan } from '../../program.ts';
import { cutText } from './end.ts';

/** `lifecycle.preStop`: what it says and a code other than 0 become an event of the Pod. */
export function prestopCommand(plan: Plan): Command {
  return new Command('prestop')
    .description('hold this container until its old epoch may end; for a preStop hook')
    .addOption(dirOption())
    .addOption(timeoutOption('24h'))
    .action((options: { dir?: string; timeout: number }) =>
      plan(async (io) => {
        let report: EndReport;
        try {
          report = (await callAgent(needDir(options), 'POST', '/v1/prestop', {
            timeoutMs: options.timeout,
          })) as EndReport;
        } catch (thrown) {
          const error = toSluiceError(thrown);
          if (error.code !== 'AGENT_AWAY') throw error;
          print(io, 'no agent here: nothing to wait for');
          return 0;
        }
        const said = cutText(report);
        if (said !== undefined) throw new SluiceError('GRACE_TOO_SHORT', said);
        print(
          io,
          report.end === 'serving'
            ? 'this container serves: SIGTERM drains it'
            : `nothing is left here${report.peer === undefined ? '' : `: slot ${report.peer} serves`}`,
        );
        return 0;
      }),
    );
}
