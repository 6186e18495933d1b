import type { Command } from 'commander';
import type { Plan } from '../../program.ts';
import { localAbort, localReset, localUpgrade } from './control.ts';
import { prestopCommand } from './prestop.ts';
import { localRecord } from './record.ts';
import { keeperCommand } from './run.ts';
import { statusCommand } from './status.ts';
import { waitCommand } from './wait.ts';

/** `sluice agent` runs the keeper; its subcommands speak with one that runs, over its Unix socket. */
export function agentCommand(plan: Plan): Command {
  return keeperCommand(plan)
    .enablePositionalOptions()
    .addCommand(waitCommand(plan))
    .addCommand(prestopCommand(plan))
    .addCommand(statusCommand(plan))
    .addCommand(localUpgrade(plan))
    .addCommand(localAbort(plan))
    .addCommand(localReset(plan))
    .addCommand(localRecord(plan));
}
