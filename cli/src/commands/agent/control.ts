import type { CheckResult } from '@sluice/contract';
import { Command } from 'commander';
import { exitOfChecks } from '../../lib/checks.ts';
import { print } from '../../lib/io.ts';
import { callAgent } from '../../lib/local-client.ts';
import { dirOption, needDir, whole } from '../../lib/options.ts';
import { type TargetOptions, target, targetOptions } from '../../lib/target.ts';
import type { Plan } from '../../program.ts';
import { overrideOf } from '../reset.ts';

/** A check runs before the answer. */
const UPGRADE_MS = 120_000;

/** Orders to an agent that has no controller; one that has refuses them. */
export function localUpgrade(plan: Plan): Command {
  return targetOptions(new Command('upgrade').description('upgrade by this agent alone'))
    .addOption(dirOption())
    .action((options: TargetOptions & { dir?: string }) =>
      plan(async (io) => {
        const body = target(options);
        const answer = await callAgent(needDir(options), 'POST', '/v1/upgrade', { body, timeoutMs: UPGRADE_MS });
        print(io, JSON.stringify(answer, null, 2));
        return exitOfChecks(answer as { ok?: boolean; checks?: readonly CheckResult[] });
      }),
    );
}

export function localAbort(plan: Plan): Command {
  return new Command('abort')
    .description('give the upgrade of this agent up')
    .requiredOption('--upgrade <id>', 'this one')
    .addOption(dirOption())
    .action((options: { upgrade: string; dir?: string }) =>
      plan(async (io) => {
        const body = { upgradeId: options.upgrade };
        print(io, JSON.stringify(await callAgent(needDir(options), 'POST', '/v1/abort', { body })));
        return 0;
      }),
    );
}

export function localReset(plan: Plan): Command {
  return new Command('reset')
    .description('end an old epoch of this agent now')
    .requiredOption('--epoch <number>', 'this one', whole(0, Number.MAX_SAFE_INTEGER))
    .option('--override', 'although protected connections are left')
    .option('--reason <text>', 'why, for the record')
    .option('--by <name>', 'who, for the record (default: the user)')
    .addOption(dirOption())
    .action((options: { epoch: number; override?: boolean; reason?: string; by?: string; dir?: string }) =>
      plan(async (io) => {
        const { override } = overrideOf(options);
        const body = { epoch: options.epoch, ...override };
        print(io, JSON.stringify(await callAgent(needDir(options), 'POST', '/v1/reset', { body, timeoutMs: 30_000 })));
        return 0;
      }),
    );
}
