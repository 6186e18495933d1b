import { parsePolicy } from '@sluice/contract';
import { Command } from 'commander';
import { readObject } from '../../lib/files.ts';
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
    .option('--policy <file>', 'drain policy to lay over the default, YAML or JSON')
    .addOption(dirOption())
    .action((options: { to: string; bootstrap?: string; policy?: string; dir?: string }) =>
      plan(async (io) => {
        const policy = options.policy === undefined ? undefined : await readObject(options.policy, '--policy');
        parsePolicy(policy);
        const body = { ...target(options), ...(policy !== undefined && { policy }) };
        const answer = await callAgent(needDir(options), 'POST', '/v1/upgrade', { body, timeoutMs: UPGRADE_MS });
        print(io, JSON.stringify(answer));
        return 0;
      }),
    );
}

export function localAbort(plan: Plan): Command {
  return new Command('abort')
    .description('give the upgrade of this agent up')
    .option('--upgrade <id>', 'this one (default: the one under way)')
    .addOption(dirOption())
    .action((options: { upgrade?: string; dir?: string }) =>
      plan(async (io) => {
        const body = options.upgrade === undefined ? {} : { upgradeId: options.upgrade };
        print(io, JSON.stringify(await callAgent(needDir(options), 'POST', '/v1/abort', { body })));
        return 0;
      }),
    );
}

export function localReset(plan: Plan): Command {
  return new Command('reset')
    .description('end an old epoch of this agent now')
    .option('--epoch <number>', 'this one (default: the oldest)', whole(0, Number.MAX_SAFE_INTEGER))
    .option('--override', 'although protected connections are left')
    .option('--reason <text>', 'why, for the record')
    .option('--by <name>', 'who, for the record (default: the user)')
    .addOption(dirOption())
    .action((options: { epoch?: number; override?: boolean; reason?: string; by?: string; dir?: string }) =>
      plan(async (io) => {
        const body = { ...(options.epoch !== undefined && { epoch: options.epoch }), ...overrideOf(options) };
        print(io, JSON.stringify(await callAgent(needDir(options), 'POST', '/v1/reset', { body, timeoutMs: 30_000 })));
        return 0;
      }),
    );
}
