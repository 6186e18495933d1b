import type { RecordEntry, UpgradeView } from '@sluice/contract';
import { type Io, print } from '../lib/io.ts';
import { type Format, printData } from '../lib/output.ts';
import { clean } from '../lib/table.ts';

/** As data or by name, if that is asked for; false when it is for people. */
export async function printUpgrade(io: Io, format: Format, upgrade: UpgradeView): Promise<boolean> {
  if (format === 'name') {
    print(io, upgrade.id);
    return true;
  }
  return printData(io, format, upgrade);
}

export function recordLine(entry: RecordEntry): string {
  const time = new Date(entry.at).toISOString().slice(11, 23);
  return clean(`${time}  ${entry.proxy}  ${entry.phase.padEnd(11)}  ${entry.event}: ${entry.text}`);
}
