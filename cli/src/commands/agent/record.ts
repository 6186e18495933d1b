import { existsSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { ResetReport } from '@sluice/agent/epochs/folder';
import { countEnded, type EndedConnection, NdjsonDecoder, SluiceError } from '@sluice/contract';
import { Command } from 'commander';
import { dirOption, needDir, whole } from '../../lib/options.ts';
import { recordOf, type UpgradeRecord } from '../../lib/record.ts';
import type { Plan } from '../../program.ts';
import { type RecordOptions, recordOptions, writeRecord } from '../record.ts';

const MAX_LINE_BYTES = 1024 * 1024;

/** What an agent wrote of one drain into its run folder: all there is where no controller keeps a record. */
export function localRecord(plan: Plan): Command {
  return recordOptions(
    new Command('record')
      .description("how an old epoch's connections ended, by the run folder alone; the agent need not run")
      .option(
        '--epoch <number>',
        'the old epoch (default: the newest one that drained)',
        whole(0, Number.MAX_SAFE_INTEGER),
      ),
  )
    .addOption(dirOption())
    .action((options: RecordOptions & { epoch?: number; dir?: string }) =>
      plan(async (io) => writeRecord(io, await readLocal(needDir(options), options.epoch), options)),
    );
}

/** Throws UPGRADE_UNKNOWN when no such epoch has drained. */
export async function readLocal(dir: string, wanted: number | undefined): Promise<UpgradeRecord> {
  const { epochFolders } = await import('@sluice/agent/epochs/folder');
  const root = join(dir, 'epochs');
  const epochs = (existsSync(root) ? epochFolders(root) : []).flatMap((folder) => {
    const meta = folder.readMeta();
    return meta === undefined ? [] : [{ folder, meta }];
  });
  const old = epochs.findLast(
    ({ meta }) => meta.drainingSince !== undefined && (wanted === undefined || meta.epoch === wanted),
  );
  if (old === undefined) {
    const which = wanted === undefined ? 'an epoch' : `epoch ${wanted}`;
    throw new SluiceError('UPGRADE_UNKNOWN', `expected ${which} that drained in ${dir}, found none`);
  }
  const { folder, meta } = old;
  const { endedBy = '', resetReport: reset, order, orderAppliedAt: appliedAt } = meta;
  const after = epochs.find((one) => one.meta.createdBy === endedBy)?.meta;
  const items = readEnded(join(folder.path, 'ended.ndjson'));
  // Until its reset nobody can say how many are still open.
  const dropped = reset === undefined ? 0 : Math.max(0, reset.old - items.length);
  return recordOf(
    {
      id: endedBy,
      proxy: proxyOf(folder.bootstrap) ?? basename(resolve(dir)),
      from: meta.version,
      oldEpoch: meta.epoch,
      ...(after && { to: after.version, epoch: after.epoch }),
      ...(after?.method && { method: after.method }),
      ...(meta.policy && { policy: meta.policy }),
      ...(meta.drainingSince !== undefined && { drainStartedAt: meta.drainingSince }),
      ...(order && { order: { version: order.version, ...(appliedAt !== undefined && { appliedAt }) } }),
      ...(meta.firstEstimate && { firstEstimate: meta.firstEstimate }),
      ...(reset && resetOf(reset)),
    },
    { upgradeId: endedBy, items, counts: countEnded(items), dropped },
  );
}

function resetOf({ at, override, old, drained, cut, why }: ResetReport): Partial<UpgradeRecord['upgrade']> {
  const connections = { old, drained, cut, ...(why !== undefined && { why }) };
  return { resetAt: at, connections, ...(override && { override }) };
}

function readEnded(file: string): EndedConnection[] {
  if (!existsSync(file)) return [];
  const decoder = new NdjsonDecoder(MAX_LINE_BYTES);
  return decoder.push(readFileSync(file)) as unknown as EndedConnection[];
}

/** The agent's name for it, which its Envoys carry in their node's metadata. */
function proxyOf(bootstrap: string): string | undefined {
  try {
    const { node } = JSON.parse(readFileSync(bootstrap, 'utf8')) as { node?: { metadata?: Record<string, unknown> } };
    const name = node?.metadata?.SLUICE_PROXY;
    return typeof name === 'string' ? name : undefined;
  } catch {
    return undefined;
  }
}
