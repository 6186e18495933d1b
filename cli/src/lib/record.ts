import {
  type EndedConnection,
  type EndedView,
  type Estimate,
  encodeLine,
  type Phase,
  type RecordEntry,
  type UpgradeView,
} from '@sluice/contract';

/** The whole record of one upgrade, as it is exported. Times are epoch milliseconds. */
export interface UpgradeRecord {
  readonly v: 1;
  /** All of it from a controller; from an agent's own folder what that agent knew. */
  readonly upgrade: Partial<Omit<UpgradeView, 'record'>> & Pick<UpgradeView, 'id' | 'proxy'>;
  readonly phases: readonly PhaseSpan[];
  readonly steps: readonly RecordEntry[];
  /** What was said of the drain's end when it began, and when it ended in truth. */
  readonly estimate?: { readonly first: Estimate; readonly endedAt: number; readonly lateMs?: number };
  /** What was said first of single connections, beside when they ended. */
  readonly accuracy?: EstimateAccuracy;
  readonly ended: Omit<EndedView, 'upgradeId'>;
}

/** Of the connections that ended as they would: what was cut, or died with its epoch, would have lasted longer. */
export interface EstimateAccuracy {
  readonly connections: number;
  /** Of the differences between `endsAt` and the end, whatever their sign. */
  readonly medianErrorMs: number;
  /** How many had ended by the time that nine of ten were said to have ended by. */
  readonly byLatest: number;
}

export interface PhaseSpan {
  readonly phase: Phase;
  readonly at: number;
  /** Absent for the last one, which has not ended or never will. */
  readonly ms?: number;
}

export const RECORD_FORMATS = ['table', 'json', 'ndjson', 'csv'] as const;
export type RecordFormat = (typeof RECORD_FORMATS)[number];

export function recordOf(
  view: UpgradeRecord['upgrade'] & { record?: readonly RecordEntry[] },
  ended: EndedView,
): UpgradeRecord {
  const { record = [], ...upgrade } = view;
  const { items, counts, dropped } = ended;
  const { firstEstimate, safeToResetAt, resetAt } = upgrade;
  const endedAt = safeToResetAt ?? resetAt;
  const estimate =
    firstEstimate === undefined || endedAt === undefined
      ? undefined
      : {
          first: firstEstimate,
          endedAt,
          ...(firstEstimate.endsAt !== undefined && { lateMs: endedAt - firstEstimate.endsAt }),
        };
  const phases = phasesOf(record, upgrade.createdAt);
  const accuracy = accuracyOf(items);
  return {
    v: 1,
    upgrade,
    phases,
    steps: record,
    ...(estimate && { estimate }),
    ...(accuracy && { accuracy }),
    ended: { items, counts, dropped },
  };
}

function accuracyOf(items: readonly EndedConnection[]): EstimateAccuracy | undefined {
  const own = items.filter(({ how, estimate }) => estimate && (how === 'left' || how === 'closed-idle'));
  const errors = own.flatMap(({ estimate }) => (estimate?.lateMs === undefined ? [] : [Math.abs(estimate.lateMs)]));
  if (errors.length === 0) return undefined;
  errors.sort((a, b) => a - b);
  const middle = errors.length / 2;
  const [low = 0, high = 0] = [errors[Math.ceil(middle) - 1], errors[Math.floor(middle)]];
  const byLatest = own.filter(({ at, estimate: { lateMs, endsLate = Number.POSITIVE_INFINITY } = {} }) => {
    return lateMs !== undefined && at <= endsLate;
  }).length;
  return { connections: errors.length, medianErrorMs: Math.round((low + high) / 2), byLatest };
}

/** Each phase from the step that began it to the next one's; a phase that was gone back to is there twice. */
function phasesOf(steps: readonly RecordEntry[], createdAt: number | undefined): PhaseSpan[] {
  const begun = steps.filter(({ event }) => event === 'phase').map(({ phase, at }) => ({ phase, at }));
  if (createdAt !== undefined && begun[0]?.phase !== 'Idle') begun.unshift({ phase: 'Idle', at: createdAt });
  return begun.map((one, n) => {
    const next = begun[n + 1];
    return { ...one, ...(next && { ms: next.at - one.at }) };
  });
}

/** The record as text; `table` is for the caller to draw. */
export function encodeRecord(record: UpgradeRecord, format: Exclude<RecordFormat, 'table'>): string {
  if (format === 'json') return `${JSON.stringify(record, null, 2)}\n`;
  return format === 'csv' ? csvOf(record) : ndjsonOf(record);
}

/** One object a line, each with its `kind`; the connections come last, in the order in which they ended. */
function ndjsonOf({ v, upgrade, phases, steps, estimate, accuracy, ended }: UpgradeRecord): string {
  const lines: object[] = [
    { kind: 'upgrade', v, upgrade },
    ...phases.map((one) => ({ kind: 'phase', ...one })),
    ...steps.map((one) => ({ kind: 'step', ...one })),
    ...(estimate === undefined ? [] : [{ kind: 'estimate', ...estimate }]),
    ...(accuracy === undefined ? [] : [{ kind: 'accuracy', ...accuracy }]),
    ...ended.counts.map((one) => ({ kind: 'count', ...one })),
    ...ended.items.map((one) => ({ kind: 'ended', ...one })),
    { kind: 'end', items: ended.items.length, dropped: ended.dropped },
  ];
  return lines.map((line) => encodeLine(line)).join('');
}

const COLUMNS: readonly [string, (one: EndedConnection, record: UpgradeRecord) => string | number | undefined][] = [
  ['upgrade', (_, { upgrade }) => upgrade.id],
  ['proxy', (_, { upgrade }) => upgrade.proxy],
  ['epoch', ({ connection }) => connection.epoch],
  ['connection', ({ connection }) => connection.id],
  ['peer', ({ connection }) => connection.peer],
  ['local', ({ connection }) => connection.local],
  ['listener', ({ connection }) => connection.listener],
  ['route', ({ connection }) => connection.route],
  ['protocol', ({ connection }) => connection.protocol],
  ['opened_at', ({ connection }) => instant(connection.openedAt)],
  ['told_at', ({ connection }) => instant(connection.toldAt)],
  ['ended_at', ({ at }) => instant(at)],
  ['how', ({ how }) => how],
  ['lever', ({ lever }) => lever],
  ['rule', ({ rule }) => rule],
  ['reason', ({ reason }) => reason],
  ['released', ({ released }) => released],
  ['override_by', (one, { upgrade }) => (one.how === 'cut' && one.released === undefined ? cutBy(upgrade) : undefined)],
  ['estimated_at', ({ estimate }) => instant(estimate?.at)],
  ['estimated_end', ({ estimate }) => instant(estimate?.endsAt)],
  ['estimated_latest', ({ estimate }) => instant(estimate?.endsLate)],
  ['late_ms', ({ estimate }) => estimate?.lateMs],
];

/** Whose word cut what policy would have waited for: a person's, or the end of the agent, which left no more time. */
function cutBy({ override, connections }: UpgradeRecord['upgrade']): string | undefined {
  return override?.by ?? (connections?.why === undefined ? undefined : 'termination');
}

/** The connections, one a row (RFC 4180). */
function csvOf(record: UpgradeRecord): string {
  const rows = record.ended.items.map((one) => COLUMNS.map(([, of]) => cell(of(one, record))));
  return [COLUMNS.map(([name]) => name), ...rows].map((row) => `${row.join(',')}\r\n`).join('');
}

function cell(value: string | number | undefined): string {
  if (typeof value === 'number') return String(value);
  const text = value ?? '';
  // A cell that begins like a formula is run by spreadsheets; a client chose what its peer name is.
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function instant(at: number | undefined): string | undefined {
  return at === undefined ? undefined : new Date(at).toISOString();
}
