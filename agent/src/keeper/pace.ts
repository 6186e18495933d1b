import { readFileSync, statSync } from 'node:fs';
import { canChoose, type DrainOrder, leavesSomeAlone, needsMarks, tellsAnybody } from '@sluice/contract';
import type { Epoch } from '../epochs/epoch.ts';
import { ageOfPressure, PRESET_DURATION_MS, writePressure } from '../levers/pressure.ts';
import { Pacer } from '../pacing/pacer.ts';
import { rateOf } from '../pacing/rate.ts';
import type { Usual } from '../pacing/usual.ts';
import { readDurations } from '../witnesses/durations.ts';
import type { KeeperContext } from './context.ts';
import { loadWatch, usualOf } from './load.ts';

/** The filter of a quiet worker begins to track within a second. */
const LISTED_MS = 2_500;

/**
 * The agent's part of an order: tells the connections of the old epoch to leave, at the order's rate. `resumed`: an
 * earlier agent has begun it, and its pressure says how far it came.
 */
export async function startPacing(
  context: KeeperContext,
  old: Epoch,
  order: DrainOrder,
  resumed: boolean,
): Promise<void> {
  const { now, log, signal } = context;
  const watch = old.drain;
  if (watch === undefined) return;
  // An order before this one tells nobody more while this one is prepared.
  watch.pacer?.stop();
  const perSecond = rateOf(watch.order ?? order);
  const { version } = old.meta;
  const tells = tellsAnybody(version);
  const marks = old.meta.leave === true && canChoose(version, 'mark');
  const chooses = needsMarks(order.policy);
  const open = old.meta.oldConnections;
  // All their turns come within the first tick: no need to know them one by one.
  const few = !chooses && perSecond > 0 && open !== undefined && open <= perSecond / 10;
  const paced = tells && (chooses || (perSecond > 0 && !few));
  const { wasm } = old.meta;
  let durations: Awaited<ReturnType<typeof readDurations>> = {};
  let usual: Usual = {};
  let complete = false;
  const load = loadWatch(context);
  if (paced) {
    // Until it is known who is open, nobody is told: the graces wait for it too.
    const listed = wasm ? watch.untilListed(LISTED_MS) : undefined;
    durations = await readDurations(old.admin).catch((error) => ({ why: String(error) }));
    usual = await usualOf(context, old).catch(() => ({}));
    complete = (await listed) ?? false;
    const wanted = () => !signal.aborted && watch.awaitsPacer === order && !old.ending;
    // Whom policy leaves alone is known from the list only: without it nobody could be told, and the drain had no end.
    const needsList = wasm && chooses && leavesSomeAlone(order.policy) && marks;
    if (needsList && !complete && wanted()) {
      log('warn', 'nobody is told to leave before the filter has listed every connection', { epoch: old.number });
      while (!complete && wanted()) complete = await watch.untilListed(LISTED_MS);
    }
    if (!wanted()) return;
  }
  const toldBefore = resumed && durations.durationMs !== undefined ? reached(old, durations.durationMs) : undefined;
  const pacer = new Pacer({
    policy: order.policy,
    // A share of the fleet's rate may have come meanwhile.
    perSecond: few ? 0 : rateOf(watch.order ?? order),
    floorAgeMs: order.cutoffAgeMs,
    can: {
      envoy: version,
      ages: complete,
      cutoff: durations.durationMs !== undefined,
      marks: complete && old.table.marks && marks,
    },
    durationMs: durations.durationMs ?? PRESET_DURATION_MS,
    usual,
    bornAt: old.meta.servingSince ?? old.meta.startedAt,
    ...(toldBefore !== undefined && { toldBefore }),
    ...(watch.pacer && { told: watch.pacer.told }),
    hands: {
      connections: () => (wasm ? old.table.connections() : []),
      open: () => watch.verdict?.total ?? open ?? 0,
      setPressure: (pressure) => writePressure(old.folder.pressure, pressure),
      mark: (ids) => old.table.mark(ids),
      load: () => load.look(),
      changed: () => watch.poke(),
    },
    log,
    now,
  });
  watch.pacer = pacer;
  const why = pacer.why ?? (paced && durations.durationMs === undefined ? durations.why : undefined);
  log('info', 'connections are told to leave', {
    epoch: old.number,
    mode: pacer.mode,
    perSecond,
    resumed: toldBefore !== undefined,
    ...(why && { why }),
  });
  pacer.start();
}

/** Everything that opened before this was told already, as the pressure file says; undefined: nothing was. */
function reached(old: Epoch, durationMs: number): number | undefined {
  try {
    const age = ageOfPressure(Number(readFileSync(old.folder.pressure, 'utf8')), durationMs);
    return age === undefined ? undefined : statSync(old.folder.pressure).mtimeMs - age;
  } catch {
    return undefined;
  }
}
