import type { Protocol } from './connections.ts';

export type AtDeadline = 'wait' | 'ask' | 'reset';

/** What the drain protects, for how long, and what happens when that is over. All durations in milliseconds. */
export interface DrainPolicy {
  /** HTTP/2 and gRPC: GOAWAY to every connection, idle ones too; open streams finish. */
  readonly http2: { readonly goaway: boolean };
  /** HTTP/1: `Connection: close` on the next response; one that stays silent is protected for the grace, then closed. */
  readonly http1: { readonly silentIdleGraceMs: number };
  /** WebSocket and other upgrades: waited for until they end, or cut at the deadline as `atDeadline` says. */
  readonly upgrades: { readonly protect: boolean };
  /** Raw TCP: as for upgrades. */
  readonly tcp: { readonly protect: boolean };
  /** Longest drain, from the order to the deadline; 0 = no limit by time. */
  readonly maxDrainMs: number;
  /** At the deadline, with protected connections left: keep waiting, ask the operator, or reset and name what is cut. */
  readonly atDeadline: AtDeadline;
  /**
   * What the lingering epochs of one proxy may hold together; 0 = no limit. When they hold more, the one that is
   * cheapest to give up is treated as one at its deadline.
   */
  readonly memory: { readonly budgetMiB: number };
  readonly pacing: Pacing;
  /** The first rule that matches a connection says how it is treated; what it leaves out is as above. */
  readonly rules: readonly PolicyRule[];
}

export interface Pacing {
  /** Connections told to leave each second; 0 = all at once. */
  readonly perSecond: number;
  /** `idlest` needs a choice per connection (lever `mark`); where it can not be had, the oldest leave first. */
  readonly order: 'oldest' | 'idlest';
  /** Whose rate it is: this proxy's, or that of all proxies that drain at once under a fleet pacing, shared out. */
  readonly scope: 'proxy' | 'fleet';
  /** Lower the rate while the new epoch or the upstreams show strain. */
  readonly adapt: boolean;
}

/** Every condition that is given has to hold; in a list one of its entries. No condition = every connection. */
export interface PolicyMatch {
  /** Listener names; `*` stands for any text. */
  readonly listeners?: readonly string[];
  readonly protocols?: readonly Protocol[];
  /** Route names, as of the last request seen since the drain began; a connection with none seen does not match. */
  readonly routes?: readonly string[];
  /** Addresses or CIDR blocks of the client. */
  readonly peers?: readonly string[];
}

export interface PolicyRule {
  readonly name: string;
  readonly match: PolicyMatch;
  /** false: not told to leave (lever `mark` tells the others). */
  readonly nudge?: boolean;
  /** false: not waited for. */
  readonly protect?: boolean;
  /** Waited for no longer than this from the start of the drain. */
  readonly protectMs?: number;
  readonly silentIdleGraceMs?: number;
  /** Who is cut first when some must be: smaller numbers first, 100 where none is given. */
  readonly cutOrder?: number;
  readonly atDeadline?: AtDeadline;
}

export const MAX_RULES = 64;
export const DEFAULT_CUT_ORDER = 100;

export const DEFAULT_POLICY: DrainPolicy = {
  http2: { goaway: true },
  http1: { silentIdleGraceMs: 60_000 },
  upgrades: { protect: true },
  tcp: { protect: true },
  maxDrainMs: 600_000,
  atDeadline: 'wait',
  memory: { budgetMiB: 0 },
  pacing: { perSecond: 500, order: 'oldest', scope: 'proxy', adapt: true },
  rules: [],
};

/** A policy as an older version of us wrote it, with what it did not know yet as by default. */
export function completePolicy(policy: Partial<DrainPolicy>): DrainPolicy {
  return { ...DEFAULT_POLICY, ...policy };
}

/** The default policy with some values replaced, one level deep. */
export type PolicyPatch = {
  readonly [K in keyof DrainPolicy]?: DrainPolicy[K] extends readonly unknown[]
    ? DrainPolicy[K]
    : Partial<DrainPolicy[K]> | DrainPolicy[K];
};
