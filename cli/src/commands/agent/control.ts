import type { CheckResult } from '@sluice/contract';
import { Command } from 'commander';
import { exitOf } from '../../lib/failure.ts';
import { print } from '../../lib/io.ts';
import { callAgent } from '../../lib/local-client.ts';
import { dirOption, needDir, whole } from '../../lib/options.ts';
import type { Plan } from '../../program.ts';
import { target } from '../check.ts';
import { overrideOf } from '../reset.ts';

/** A check runs before the answer. */
const UPGRADE_MS = 120_000;

/** Orders to an agent that has no controller; one that has refuses them. */
export function localUpgrade(plan: Plan): Command {
  return new Command('upgrade')
    .description('upgrade by this agent alone')
    .requiredOption('--to <version>', 'Envoy version, or path of a binary')
    .option('--bootstrap <file>', 'another bootstrap')
    .addOption(dirOption())
    .action((options: { to: string; bootstrap?: string; dir?: string }) =>
      plan(async (io) => {
        const body = target(options);
        const answer = await callAgent(needDir(options), 'POST', '/v1/upgrade', { body, timeoutMs: UPGRADE_MS });
        print(io, JSON.stringify(answer, null, 2));
        const { ok, checks } = answer as { ok?: boolean; checks?: readonly CheckResult[] };
        return ok === false ? exitOf(checks?.find((c) => !c.ok)?.code ?? 'PREFLIGHT_BINARY') : 0;
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
    .addOption(dirOption())
    .action((options: { epoch: number; override?: boolean; reason?: string; dir?: string }) =>
      plan(async (io) => {
        const { override } = overrideOf(options);
        const body = { epoch: options.epoch, ...(override && { reason: override.reason }) };
        print(io, JSON.stringify(await callAgent(needDir(options), 'POST', '/v1/reset', { body, timeoutMs: 30_000 })));
        return 0;
      }),
    );
}
