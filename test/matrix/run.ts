import http2 from 'node:http2';
import { leverFor, type Outcome, type PolicyPatch } from '@sluice/contract';
import { reconcile } from '../harness/load/reconcile.ts';
import type { Cell } from './cells.ts';
import { Context, type Moments, within } from './context.ts';
import { startRig } from './rig.ts';

/** Time that a silent idle connection is left alone: longer than the cells need to act after the order. */
export const GRACE_MS = 4_000;
/** On each worker some: when all of these were told, every worker has felt the order. */
const PROBES = 8;

export interface CellResult {
  readonly outcome: Outcome;
  readonly failures: readonly string[];
  readonly answered: number;
  /** Sent by nobody, or by RFC 9112 9.6 not processed: to be asked again elsewhere. */
  readonly refused: number;
}

/** One upgrade with all cells on the old epoch. Throws when the upgrade itself does not go through. */
export async function runMatrix(
  from: string,
  to: string,
  cells: readonly Cell[],
  policy: PolicyPatch,
): Promise<Map<string, CellResult>> {
  const rig = await startRig(from, { http1: { silentIdleGraceMs: GRACE_MS }, ...policy });
  const contexts: Context[] = [];
  try {
    const told = Promise.withResolvers<void>();
    const sessionsEnd = Promise.withResolvers<void>();
    const moments: Moments = { told: told.promise, sessionsEnd: sessionsEnd.promise };
    const results = new Map<string, Promise<Outcome>>();
    for (const { name, transport, client } of cells) {
      const context = new Context({ name, transport, moments, ...rig });
      contexts.push(context);
      const result = client(context);
      results.set(name, result);
      // A client that fails before it is ready is found when its result is asked for.
      await within(`the client of "${name}" is ready`, Promise.race([context.ready, result]));
    }
    const probes = await openProbes(rig.where.plain as number);
    await rig.upgrade(to);
    await within('GOAWAY on every probe', Promise.all(probes));
    told.resolve();
    const leverOf = ({ protocol, state }: Cell) => leverFor(from, protocol, state);
    const ended = new Map<string, Ended>();
    const settle = async (some: readonly Cell[]) => {
      for (const { name } of some) ended.set(name, await outcomeOf(results.get(name)));
    };
    // Sessions that hold one back are ended after those that leave; where Envoy runs no filter, no silent connection is
    // closed before, because each session counts as a request.
    await settle(cells.filter((cell) => cell.endsBy !== 'client' && leverOf(cell).lever === 'age-pressure'));
    sessionsEnd.resolve();
    await settle(cells.filter(({ name }) => !ended.has(name)));
    await rig.keeper.line('old epoch reset');
    return gather(contexts, ended, rig.seen);
  } finally {
    for (const context of contexts) context.close();
    await rig.close();
  }
}

/** Idle HTTP/2 connections; each promise resolves with its GOAWAY. */
async function openProbes(port: number): Promise<Promise<void>[]> {
  const sessions = Array.from({ length: PROBES }, () => http2.connect(`http://127.0.0.1:${port}`));
  for (const session of sessions) session.on('error', () => {});
  await Promise.all(
    sessions.map(
      (session) =>
        new Promise<void>((resolve) => {
          const stream = session.request({ ':path': '/' }).resume();
          stream.on('error', () => {});
          stream.once('close', resolve).end();
        }),
    ),
  );
  return sessions.map((session) => new Promise<void>((resolve) => session.once('goaway', () => resolve())));
}

interface Ended {
  readonly outcome: Outcome;
  /** The client itself went wrong. */
  readonly error?: string;
}

async function outcomeOf(result: Promise<Outcome> | undefined): Promise<Ended> {
  try {
    return { outcome: (await result) ?? 'cut' };
  } catch (error) {
    return { outcome: 'cut', error: (error as Error).message };
  }
}

function gather(
  contexts: readonly Context[],
  ended: ReadonlyMap<string, Ended>,
  seen: ReadonlyMap<string, number>,
): Map<string, CellResult> {
  const mismatches = reconcile(
    contexts.map(({ tally }) => tally),
    seen,
  );
  return new Map(
    contexts.map(({ tally }) => {
      const { outcome, error } = ended.get(tally.name) ?? { outcome: 'cut' as const };
      const failures = [
        ...(error === undefined ? [] : [error]),
        ...tally.failures.map(({ what }) => what),
        ...mismatches.filter(({ client }) => client === tally.name).map(({ what }) => what),
      ];
      return [tally.name, { outcome, failures, answered: tally.answered.size, refused: tally.refused.size }];
    }),
  );
}
