import type { ExplainItem, HeldConnection } from '@sluice/contract';
import { Command } from 'commander';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { type Format, outputOption, printData } from '../lib/output.ts';
import { clean, table } from '../lib/table.ts';
import { formatSpan } from '../lib/time.ts';
import type { Plan } from '../program.ts';

export function explainCommand(plan: Plan): Command {
  return new Command('explain')
    .description('say why a proxy is not yet safe to reset, and what a reset now would cut')
    .argument('<proxy>')
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((proxy: string, options: { controller: string; output: Format }) =>
      plan(async (io) => {
        const view = await client(options).explain(proxy);
        if (await printData(io, options.output, view)) return 0;
        if (options.output === 'name') {
          for (const item of view.items) print(io, item.upgradeId);
          return 0;
        }
        print(io, clean(view.summary));
        for (const item of view.items) explainItem(io, item, options.output === 'wide', Date.now());
        return 0;
      }),
    );
}

function explainItem(io: Io, item: ExplainItem, wide: boolean, now: number): void {
  const epoch = item.oldEpoch === undefined ? '' : `, old epoch ${item.oldEpoch}`;
  print(
    io,
    clean(
      `\nupgrade ${item.upgradeId} is ${item.phase}${epoch}: ${item.safe ? 'safe to reset' : 'not yet safe to reset'}`.trimStart(),
    ),
  );
  for (const why of item.why) print(io, clean(`  - ${why}`));
  if (item.held.length > 0) print(io, `\n${heldTable(item.held, now)}`);
  const shown = item.held.length;
  if (item.total > shown) print(io, `only ${shown} of ${item.total} are shown`);
  print(
    io,
    item.wouldCut.length === 0
      ? '\nA reset now would cut nothing.'
      : `\nA reset now would cut ${item.wouldCut.length}:`,
  );
  for (const { connection, reason } of item.wouldCut) {
    print(io, clean(`  ${connection.epoch}/${connection.id}  ${connection.peer}  ${connection.protocol}  ${reason}`));
  }
  if (item.nextChangeAt !== undefined) print(io, `Next change by itself in ${formatSpan(item.nextChangeAt - now)}.`);
  if (item.deadlineAt !== undefined) {
    const left = item.deadlineAt - now;
    print(
      io,
      left > 0
        ? `Deadline of the drain in ${formatSpan(left)}.`
        : `Deadline of the drain passed ${formatSpan(-left)} ago.`,
    );
  }
  if (wide) {
    for (const w of item.witnesses)
      print(io, clean(`witness ${w.name}: ${w.open === undefined ? `not heard, ${w.why ?? ''}` : `${w.open} open`}`));
  }
  print(io, clean(`What to do: ${item.hint}`));
}

function heldTable(held: readonly HeldConnection[], now: number): string {
  return table(
    ['CONNECTION', 'PEER', 'PROTOCOL', 'AGE', 'PROTECTED', 'WHY', 'ENDS BY ITSELF'],
    held.map((h) => [
      `${h.connection.epoch}/${h.connection.id}`,
      h.connection.peer,
      h.connection.protocol,
      formatSpan(now - h.connection.openedAt),
      h.protected ? 'yes' : 'no',
      h.reason,
      h.until === undefined ? '-' : `in ${formatSpan(h.until - now)}`,
    ]),
  );
}
