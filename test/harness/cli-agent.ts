import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { LogLine } from './keeper.ts';
import { type Child, start } from './process.ts';

const CLI = path.join(import.meta.dirname, '../../cli/src/main.ts');

/** `sluice agent --config FILE` as a process, with its log as events. */
export class CliAgent {
  readonly dir: string;
  readonly lines: LogLine[] = [];
  child!: Child;
  #waiting: (() => void)[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** Resolves when its first or adopted epoch serves. */
  static async start(config: { readonly dir: string } & Record<string, unknown>): Promise<CliAgent> {
    const agent = new CliAgent(config.dir);
    const file = `${config.dir}.json`;
    await writeFile(file, JSON.stringify({ logLevel: 'debug', ...config }));
    agent.child = await start(process.execPath, ['--conditions=sluice-source', CLI, 'agent', '--config', file], {
      name: 'agent',
      readyTimeoutMs: 40_000,
      onLine: (text) => {
        if (!text.startsWith('{')) return;
        agent.lines.push(JSON.parse(text) as LogLine);
        for (const wake of agent.#waiting.splice(0)) wake();
      },
    });
    const died = agent.child.ended.then(({ code }) => {
      throw new Error(`the agent ended with ${code}:\n${agent.child.tail}`);
    });
    died.catch(() => {});
    await Promise.race([agent.sluice('agent', 'wait', '--timeout', '30s'), died]);
    return agent;
  }

  /** A command of the command line about this agent. Rejects unless it ends with 0. */
  async sluice(...args: string[]): Promise<string> {
    const command = await start(process.execPath, ['--conditions=sluice-source', CLI, ...args, '--dir', this.dir], {
      name: `sluice ${args.join(' ')}`,
    });
    const { code } = await command.ended;
    if (code !== 0) throw new Error(`sluice ${args.join(' ')}: exit ${code}\n${command.tail}`);
    return command.tail;
  }

  /** The `nth` line of that message (1 = the first), also one that has come. */
  async line(message: string, is: (line: LogLine) => boolean = () => true): Promise<LogLine> {
    for (;;) {
      const found = this.lines.find((line) => line.message === message && is(line));
      if (found) return found;
      const more = new Promise<void>((resolve) => this.#waiting.push(resolve));
      const ended = this.child.ended.then(() => {
        if (!this.lines.some((line) => line.message === message && is(line)))
          throw new Error(`ended before "${message}":\n${this.child.tail}`);
      });
      await Promise.race([more, ended]);
    }
  }
}
