import { type Connection, type EndedConnection, type ExplainView, SluiceError } from '@sluice/contract';
import { Command } from 'commander';
import type { ApiClient } from '../lib/api-client.ts';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption, printData } from '../lib/output.ts';
import { clean } from '../lib/table.ts';
import type { Plan } from '../program.ts';
import { connectionLines, explainLines } from '../view/explain.ts';
import { endedLine } from '../view/record.ts';

/** As many as the API gives. */
const MAX_CONNECTIONS = 10_000;

interface Options {
  readonly connection?: string;
  readonly controller: string;
  readonly output: Format;
}

export function explainCommand(plan: Plan): Command {
  return new Command('explain')
    .description(
      'say why a proxy is not yet safe to reset, which rule holds each connection, and what a reset would cut',
    )
    .argument('<proxy>')
    .option('--connection <peer|id>', 'this one alone: the client `ip:port`, `EPOCH/ID`, or its id')
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: Options) =>
      plan(async (io) => {
        const api = client(options);
        const view = await api.explain(proxy);
        if (options.connection !== undefined)
          return explainOne(io, { api, view, format: options.output }, options.connection);
        if (await printData(io, options.output, view)) return 0;
        if (options.output === 'name') {
          for (const item of view.items) print(io, item.upgradeId);
          return 0;
        }
        print(io, clean(view.summary));
        for (const item of view.items) print(io, explainLines(item, Date.now(), options.output === 'wide').join('\n'));
        return 0;
      }),
    );
}

/** One of an old epoch, held or ended already; or one that nothing asks to leave. Throws CONNECTION_UNKNOWN. */
async function explainOne(
  io: Io,
  { api, view, format }: { readonly api: ApiClient; readonly view: ExplainView; readonly format: Format },
  reference: string,
): Promise<number> {
  const show = async (value: unknown, name: Connection, lines: readonly string[]): Promise<number> => {
    if (format === 'name') print(io, `${name.epoch}/${name.id}`);
    else if (!(await printData(io, format, value))) print(io, lines.join('\n'));
    return 0;
  };
  const now = Date.now();
  for (const item of view.items) {
    const held = item.held.find((one) => isNamed(one.connection, reference));
    if (held) return show(held, held.connection, connectionLines(held.connection, { item, held, now }));
  }
  const { items } = await api.connections(view.proxy, { limit: MAX_CONNECTIONS });
  const open = items.find((one) => isNamed(one, reference));
  if (open) {
    const item = view.items.find(({ oldEpoch }) => oldEpoch === open.epoch);
    const calm = `${open.peer} is connection ${open.epoch}/${open.id} of epoch ${open.epoch}: nothing tells it to leave`;
    return show(open, open, item === undefined ? [clean(calm)] : connectionLines(open, { item, now }));
  }
  const ended = await endedOne(api, view, reference);
  if (ended) return show(ended, ended.connection, [clean(endedLine(ended))]);
  throw new SluiceError('CONNECTION_UNKNOWN', `expected a connection of ${view.proxy}, found none named ${reference}`);
}

async function endedOne(api: ApiClient, view: ExplainView, reference: string): Promise<EndedConnection | undefined> {
  for (const { upgradeId } of view.items) {
    const { items } = await api.ended(upgradeId);
    const found = items.findLast((one) => isNamed(one.connection, reference));
    if (found) return found;
  }
  return undefined;
}

function isNamed(connection: Connection, reference: string): boolean {
  return [connection.peer, `${connection.epoch}/${connection.id}`, connection.id].includes(reference);
}
