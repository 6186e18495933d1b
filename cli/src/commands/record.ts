import { renameSync, writeFileSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';
import { Command, Option } from 'commander';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption } from '../lib/options.ts';
import { encodeRecord, RECORD_FORMATS, type RecordFormat, recordOf, type UpgradeRecord } from '../lib/record.ts';
import type { Plan } from '../program.ts';
import { recordLines } from '../view/record.ts';

export interface RecordOptions {
  readonly format?: RecordFormat;
  readonly out?: string;
}

export function recordCommand(plan: Plan): Command {
  return recordOptions(
    new Command('record')
      .description('the whole record of an upgrade: phases, checks, orders, and how each connection ended')
      .argument('<upgrade>', 'its id, or the proxy'),
  )
    .addOption(controllerOption())
    .action((reference: string, options: RecordOptions & { controller: string }) =>
      plan(async (io) => {
        const api = client(options);
        const { id } = await api.find(reference);
        const [upgrade, ended] = await Promise.all([api.upgrade(id), api.ended(id)]);
        return writeRecord(io, recordOf(upgrade, ended), options);
      }),
    );
}

export function recordOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--format <format>', 'default: as the name of --out ends, else table').choices(RECORD_FORMATS),
    )
    .option('--out <file>', 'write it there');
}

/** Prints the record, or writes the whole file at once. Throws CONFIG_INVALID for a file that can not be written. */
export function writeRecord(io: Io, record: UpgradeRecord, { format: wanted, out }: RecordOptions): number {
  const format = wanted ?? RECORD_FORMATS.find((one) => out?.endsWith(`.${one}`)) ?? 'table';
  const text = format === 'table' ? `${recordLines(record).join('\n')}\n` : encodeRecord(record, format);
  if (out === undefined) {
    print(io, text);
    return 0;
  }
  try {
    const next = `${out}.${process.pid}.tmp`;
    writeFileSync(next, text, { mode: 0o600 });
    renameSync(next, out);
  } catch (cause) {
    throw new SluiceError('CONFIG_INVALID', `--out: expected a file to write, found: ${(cause as Error).message}`, {
      cause,
    });
  }
  io.err.write(`${record.ended.items.length} ended connections written to ${out}\n`);
  return 0;
}
