import type { Connection } from '@sluice/contract';
import { Command } from 'commander';
import { client, controllerOption, whole } from '../lib/options.ts';
import { type Column, type Format, outputOption, printList } from '../lib/output.ts';
import { formatBytes, formatSpan } from '../lib/time.ts';
import type { Plan } from '../program.ts';

interface Options {
  readonly epoch?: number;
  readonly limit: number;
  readonly controller: string;
  readonly output: Format;
}

export function connectionsCommand(plan: Plan): Command {
  return new Command('connections')
    .description('list the open connections of a proxy')
    .argument('<proxy>')
    .option('--epoch <number>', 'of this epoch only', whole(0, Number.MAX_SAFE_INTEGER))
    .option('--limit <count>', 'at most so many', whole(1, 10_000), 1_000)
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: Options) =>
      plan(async (io) => {
        const { limit, epoch } = options;
        const view = await client(options).connections(proxy, { limit, ...(epoch !== undefined && { epoch }) });
        await printList(io, options.output, view.items, {
          columns: connectionColumns(Date.now()),
          name: (c) => `${c.epoch}/${c.id}`,
          whole: view,
          empty: `${proxy} has no open connections that its filter knows of`,
        });
        if (view.truncated) io.err.write(`only the first ${view.items.length} are shown\n`);
        return 0;
      }),
    );
}

export function connectionColumns(now: number): Column<Connection>[] {
  return [
    { title: 'EPOCH', of: (c) => String(c.epoch) },
    { title: 'ID', of: (c) => c.id },
    { title: 'PROTOCOL', of: (c) => c.protocol },
    { title: 'PEER', of: (c) => c.peer },
    { title: 'LISTENER', of: (c) => c.listener },
    { title: 'AGE', of: (c) => formatSpan(now - c.openedAt) },
    { title: 'IN FLIGHT', of: (c) => (c.inFlight === undefined ? '?' : String(c.inFlight)) },
    { title: 'LOCAL', of: (c) => c.local, wide: true },
    { title: 'ROUTE', of: (c) => c.route ?? '-', wide: true },
    { title: 'BYTES', of: (c) => formatBytes(c.bytes), wide: true },
    {
      title: 'LAST ACTIVE',
      of: (c) => (c.lastActivityAt === undefined ? '-' : `${formatSpan(now - c.lastActivityAt)} ago`),
      wide: true,
    },
  ];
}
