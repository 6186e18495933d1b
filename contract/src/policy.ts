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
  /** Longest drain, from the order to the deadline. */
  readonly maxDrainMs: number;
  /** At the deadline, with protected connections left: keep waiting, ask the operator, or reset and name what is cut. */
  readonly atDeadline: 'wait' | 'ask' | 'reset';
}

export const DEFAULT_POLICY: DrainPolicy = {
  http2: { goaway: true },
  http1: { silentIdleGraceMs: 60_000 },
  upgrades: { protect: true },
  tcp: { protect: true },
  maxDrainMs: 600_000,
  atDeadline: 'wait',
};

/** The default policy with some values replaced, one level deep. */
export type PolicyPatch = { readonly [K in keyof DrainPolicy]?: Partial<DrainPolicy[K]> | DrainPolicy[K] };
