import { toSluiceError } from '@sluice/contract';
import { Command, CommanderError } from 'commander';
import { abortCommand } from './commands/abort.ts';
import { agentCommand } from './commands/agent/index.ts';
import { checkCommand } from './commands/check.ts';
import { completionCommand } from './commands/completion.ts';
import { connectionsCommand } from './commands/connections.ts';
import { controllerCommand } from './commands/controller.ts';
import { explainCommand } from './commands/explain.ts';
import { getCommand } from './commands/get.ts';
import { injectCommand } from './commands/inject.ts';
import { planCommand } from './commands/plan.ts';
import { recordCommand } from './commands/record.ts';
import { resetCommand } from './commands/reset.ts';
import { rollbackCommand } from './commands/rollback.ts';
import { rolloutCommand } from './commands/rollout.ts';
import { upgradeCommand } from './commands/upgrade.ts';
import { versionCommand } from './commands/version.ts';
import { EXIT, renderFailure } from './lib/failure.ts';
import type { Io } from './lib/io.ts';

/** Resolves with the exit code. */
export type Action = (io: Io) => Promise<number>;
/** Takes what the command line asks for; run after parsing, so that parsing itself has no effect. */
export type Plan = (action: Action) => void;

/** The commands; none of them loads a controller or a keeper before it is run. */
export function buildProgram(plan: Plan, name = 'sluice'): Command {
  const program = new Command(name)
    .description('Upgrades the Envoys of a live mesh without losing a request')
    .enablePositionalOptions()
    .showHelpAfterError('(see --help)');
  for (const make of [
    upgradeCommand,
    rolloutCommand,
    getCommand,
    explainCommand,
    connectionsCommand,
    planCommand,
    checkCommand,
    abortCommand,
    rollbackCommand,
    resetCommand,
    recordCommand,
    controllerCommand,
    agentCommand,
    injectCommand,
    versionCommand,
    completionCommand,
  ]) {
    program.addCommand(make(plan));
  }
  return program;
}

/** Parses and runs; never throws. Resolves with the exit code. */
export async function runProgram(args: readonly string[], io: Io): Promise<number> {
  let chosen: Action | undefined;
  const program = buildProgram((action) => {
    chosen = action;
  }, io.programName);
  withIo(program, io);
  try {
    await program.parseAsync(args, { from: 'user' });
    return chosen === undefined ? EXIT.ok : await chosen(io);
  } catch (thrown) {
    // commander has printed its own message; help asked for by --help is no failure.
    if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const error = toSluiceError(thrown);
    io.err.write(renderFailure(error));
    if (error.code === 'INTERNAL' && io.env.SLUICE_DEBUG !== undefined)
      io.err.write(`${(error.cause as Error)?.stack}\n`);
    return error.exit;
  }
}

/** Every command writes to this io and throws instead of ending the process. */
function withIo(command: Command, io: Io): void {
  command.exitOverride();
  command.configureOutput({
    writeOut: (text) => io.out.write(text),
    writeErr: (text) => io.err.write(text),
  });
  for (const sub of command.commands) withIo(sub, io);
}
