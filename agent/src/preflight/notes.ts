import {
  type Connection,
  type DrainPolicy,
  METHODS,
  type MethodName,
  type PlanNote,
  tellsAnybody,
  treatmentOf,
  whyWeakest,
} from '@sluice/contract';
import type { ClusterFacts, ListenerFacts, LocalLimit } from './notes-facts.ts';

/** What is known of the serving epoch before its successor starts. What could not be read is absent, and `unread` says why. */
export interface PlanFacts {
  /** Version of the serving Envoy. */
  readonly envoy: string;
  readonly clusters?: ClusterFacts;
  readonly listeners?: ListenerFacts;
  readonly upstreamConnections?: number;
  readonly privateBytes?: number;
  /** Private memory of the epochs that linger already, bytes. */
  readonly lingeringBytes: number;
  /** Open downstream connections, by the kernel. */
  readonly open?: number;
  /** The same one by one, where they are known. */
  readonly connections?: readonly Connection[];
  readonly method?: MethodName;
  /** How long the drain of these would take by what earlier ones took, ms; `observed` ends stand behind it. */
  readonly drain?: { readonly likely?: number; readonly late?: number; readonly observed: number };
  readonly unread: readonly string[];
}

/** Named one by one; the rest are counted. */
const NAMED = 5;
const MIB = 1024 * 1024;

/** What two live epochs would mean for the user of this proxy, most important first. */
export function planNotes(facts: PlanFacts, policy: DrainPolicy): PlanNote[] {
  const notes = [
    ...methodNotes(facts),
    ...breakerNotes(facts),
    ...limitNotes(facts),
    ...upstreamNotes(facts),
    ...memoryNotes(facts, policy),
    ...sessionNotes(facts, policy),
    ...drainNotes(facts, policy),
    ...facts.unread.map(
      (why): PlanNote => ({ about: 'method', level: 'warn', text: `not everything could be read: ${why}` }),
    ),
  ];
  return [...notes.filter(({ level }) => level === 'warn'), ...notes.filter(({ level }) => level === 'info')];
}

function methodNotes({ method }: PlanFacts): PlanNote[] {
  return method === undefined ? [] : [{ about: 'method', level: 'info', text: `${method}: ${METHODS[method]}` }];
}

function breakerNotes({ clusters }: PlanFacts): PlanNote[] {
  if (clusters === undefined || clusters.total === 0) return [];
  const about = 'circuit-breakers';
  const texts = clusters.breakers.map(({ cluster, priority, limits }) => {
    const high = priority === 'high' ? ' (priority high)' : '';
    const each = Object.entries(limits).map(([name, n]) => `${name} ${n} (up to ${2 * n} while both live)`);
    return `cluster ${cluster}${high}: ${each.join(', ')} in each epoch`;
  });
  const set = new Set(clusters.breakers.map(({ cluster }) => cluster));
  const rest = clusters.total - set.size;
  return [
    ...named(texts, 'clusters').map((text): PlanNote => ({ about, level: 'warn', text })),
    ...(rest > 0
      ? [
          {
            about,
            level: 'info',
            text: `${count(rest, 'cluster')} with Envoy's own thresholds (1024 connections, pending requests and requests, 3 retries) have them once in each epoch`,
          } as const,
        ]
      : []),
  ];
}

function limitNotes({ listeners }: PlanFacts): PlanNote[] {
  if (listeners === undefined) return [];
  const about = 'rate-limits';
  const texts = listeners.limits.map((one) => `${one.where}: local ${one.what} limit ${one.filter}: ${twice(one)}`);
  const { globalLimits } = listeners;
  return [
    ...named(texts, 'local limits').map((text): PlanNote => ({ about, level: 'warn', text })),
    ...(globalLimits.length > 0
      ? [
          {
            about,
            level: 'info',
            text: `${globalLimits.join(', ')}: asked of a rate limit service, which counts both epochs together: nothing changes`,
          } as const,
        ]
      : []),
  ];
}

function twice({ count: n, unit = '' }: LocalLimit): string {
  return n === undefined
    ? 'counted in each epoch by itself'
    : `${n} ${unit} in each epoch, so up to ${2 * n} while both live`;
}

function upstreamNotes({ upstreamConnections, clusters }: PlanFacts): PlanNote[] {
  const about = 'upstream-connections';
  const checked = clusters?.healthChecked ?? [];
  return [
    ...(upstreamConnections !== undefined
      ? [
          {
            about,
            level: 'info',
            text: `${count(upstreamConnections, 'connection')} to upstreams ${upstreamConnections === 1 ? 'is' : 'are'} open now; the new epoch opens its own beside them, about as many`,
          } as const,
        ]
      : []),
    ...(checked.length > 0
      ? [
          {
            about,
            level: 'info',
            text: `active health checks are sent by each epoch, so twice as many: ${short(checked)}`,
          } as const,
        ]
      : []),
  ];
}

function memoryNotes({ privateBytes, lingeringBytes }: PlanFacts, { memory }: DrainPolicy): PlanNote[] {
  if (privateBytes === undefined) return [];
  const held = privateBytes + lingeringBytes;
  const others = lingeringBytes > 0 ? `, beside ${mib(lingeringBytes)} of those that linger already` : '';
  const text = `the serving epoch holds ${mib(privateBytes)} of its own; a second one needs about as much until the old one is reset${others}`;
  const over = memory.budgetMiB > 0 && held > memory.budgetMiB * MIB;
  if (!over) return [{ about: 'memory', level: 'info', text }];
  const limit = `policy lets lingering epochs hold ${memory.budgetMiB} MiB, and this would be ${mib(held)}: the old epoch is at its limit from the start`;
  return [{ about: 'memory', level: 'warn', text: `${text}; ${limit}` }];
}

function sessionNotes({ connections, listeners }: PlanFacts, policy: DrainPolicy): PlanNote[] {
  const about = 'sessions';
  const sessions = (connections ?? []).filter(({ protocol }) => protocol === 'upgrade' || protocol === 'tcp');
  const kept = sessions.filter((one) => treatmentOf(policy, one).protect).length;
  const upgrades = sessions.filter(({ protocol }) => protocol === 'upgrade').length;
  const tickets = listeners?.randomTickets ?? [];
  const what = [
    count(upgrades, 'WebSocket or other upgrade', 'WebSockets or other upgrades'),
    count(sessions.length - upgrades, 'TCP session'),
  ];
  return [
    ...(sessions.length > 0
      ? [
          {
            about,
            level: 'info',
            text: `${what.join(' and ')} live on in the old epoch until they end: policy waits for ${kept} of them`,
          } as const,
        ]
      : []),
    ...(tickets.length > 0
      ? [
          {
            about,
            level: 'warn',
            text: `${tickets.length === 1 ? 'listener' : 'listeners'} ${short(tickets)}: no session_ticket_keys, so each epoch has random ones: a TLS session of the old epoch is not resumed on the new one, each client shakes hands in full once`,
          } as const,
        ]
      : []),
  ];
}

function drainNotes({ envoy, open, connections, drain, listeners }: PlanFacts, policy: DrainPolicy): PlanNote[] {
  const about = 'drain';
  const notes: PlanNote[] = [];
  const total = open ?? connections?.length;
  const limit =
    policy.maxDrainMs === 0
      ? 'there is no limit by time'
      : `at ${span(policy.maxDrainMs)} policy says: ${policy.atDeadline}`;
  if (!tellsAnybody(envoy)) {
    const who = total === undefined ? 'open connections' : count(total, 'open connection');
    const text = `${whyWeakest(envoy)}: none of the ${who} is told to leave and nothing idle is closed, each is waited for; ${limit}`;
    notes.push({ about, level: 'warn', text });
  } else if (total !== undefined) {
    const { perSecond } = policy.pacing;
    const lasts =
      perSecond === 0
        ? 'told to leave at once'
        : `told to leave at ${perSecond} a second: the last one after ${span((total / perSecond) * 1_000)} at the earliest`;
    const grace = `a silent HTTP/1 connection has ${span(policy.http1.silentIdleGraceMs)} from then`;
    notes.push({ about, level: 'info', text: `${count(total, 'open connection')} ${lasts}; ${grace}; ${limit}` });
  }
  const quic = listeners?.quic ?? [];
  if (quic.length > 0) {
    const text = `${quic.length === 1 ? 'listener' : 'listeners'} ${short(quic)} over QUIC: Envoy’s own drain begins with the handover, and tells busy connections over TCP too within seconds, whatever the pace of ours`;
    notes.push({ about, level: 'warn', text });
  }
  if (!tellsAnybody(envoy)) return notes;
  if (drain !== undefined && drain.observed >= 1 && drain.likely !== undefined) {
    const late = drain.late === undefined ? '' : `, ${span(drain.late)} in nine of ten cases`;
    notes.push({
      about,
      level: 'info',
      text: `begun now it would be over in about ${span(drain.likely)}${late}; ${count(Math.round(drain.observed), 'end')} of earlier drains ${Math.round(drain.observed) === 1 ? 'stands' : 'stand'} behind this`,
    });
  }
  if (policy.rules.length > 0 && connections !== undefined)
    notes.push({ about, level: 'info', text: rulesText(connections, policy) });
  return notes;
}

function rulesText(connections: readonly Connection[], policy: DrainPolicy): string {
  const counts = new Map(policy.rules.map(({ name }) => [name, 0]));
  for (const one of connections) {
    const { rule } = treatmentOf(policy, one);
    counts.set(rule, (counts.get(rule) ?? 0) + 1);
  }
  return `of the open connections ${[...counts].map(([rule, n]) => `rule ${rule} holds ${n}`).join(', ')}, as of now`;
}

function named(texts: readonly string[], what: string): readonly string[] {
  if (texts.length <= NAMED) return texts;
  return [...texts.slice(0, NAMED), `and ${texts.length - NAMED} more ${what}, each of them once in each epoch`];
}

function short(names: readonly string[]): string {
  const rest = names.length - NAMED;
  return `${names.slice(0, NAMED).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`;
}

function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}

function span(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 120_000) return `${Math.round(ms / 100) / 10} s`;
  return ms < 7_200_000 ? `${Math.round(ms / 6_000) / 10} min` : `${Math.round(ms / 360_000) / 10} h`;
}
