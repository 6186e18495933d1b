/** One Envoy as the broker addresses it. */
export interface Party {
  /** Its `--restart-epoch`. Parent's and child's need not be consecutive: each side's names follow from its own epoch. */
  readonly epoch: number;
  /** Its `--socket-path`: an abstract name such as `@sluice-8-3`, unlike that of every other live epoch. */
  readonly socketPath: string;
  /** Pid as the broker sees it; its death is then noticed at once, and not at the next message. */
  readonly pid?: number;
}

export type BrokerLog = (message: string, fields?: Record<string, unknown>) => void;

/** One answer to PassListenSocket that the child got. */
export interface Passed {
  /** As Envoy writes it: `tcp://127.0.0.1:10000`, `udp://...`, `unix:///path`. */
  readonly address: string;
  readonly worker: number;
  readonly networkNamespace?: string;
  /** A socket was passed; false = the child binds one of its own. */
  readonly given: boolean;
  /** Who gave it: the live parent, or the kept dups. */
  readonly by: 'parent' | 'kept';
}

export type HandoverEvent =
  /** The child's first message: it runs and found its parent. */
  | { readonly type: 'connected'; readonly at: number }
  | { readonly type: 'passed'; readonly at: number; readonly passed: Passed }
  /** The child serves; the parent was told to drain its listeners. */
  | { readonly type: 'drainRequested'; readonly at: number }
  /** The parent ended during the handover: from here on the broker answers from the kept dups. */
  | { readonly type: 'parentGone'; readonly at: number; readonly why: string }
  | { readonly type: 'independent'; readonly at: number }
  /** A message that this build does not know; it was relayed untouched (refused politely when there is no parent). */
  | { readonly type: 'unknownMessage'; readonly at: number; readonly from: 'parent' | 'child'; readonly hex: string };

export interface HandoverOptions {
  readonly baseId: number;
  /**
   * What to keep a dup of, and what answers when the parent is gone. Absent = nothing is kept.
   */
  readonly kept?: import('./kept.ts').KeptSockets;
  /** Ends the handover at once (drainRequested and independent reject unless already settled). */
  readonly signal?: AbortSignal;
  readonly log?: BrokerLog;
  readonly onEvent?: (event: HandoverEvent) => void;
  /** Longest time until the child serves (DrainListeners); EPOCH_TIMEOUT after it. Default 120,000 ms. */
  readonly timeoutMs?: number;
  /** Longest time from DrainListeners to the terminate request. Default 30,000 ms (child's parent-shutdown-time-s + slack). */
  readonly terminateTimeoutMs?: number;
  /** Clock, epoch milliseconds. */
  readonly now?: () => number;
}

export interface RelayOptions extends HandoverOptions {
  readonly parent: Party;
  readonly child: Party;
  /**
   * Asked for each UDP socket that the parent passes: true = the child does not get it, and binds one of its own beside it.
   * The descriptor is closed after the call.
   */
  readonly bindsBeside?: (fd: number, udp: { readonly address: string; readonly worker: number }) => boolean;
  /**
   * `relay`: the parent closes its admin listener, so that the child can bind the same admin address.
   * `answer`: the broker answers in the parent's place; the parent keeps admin and stats flush. Only when each epoch has
   * an admin address of its own. Default `relay`.
   */
  readonly shutdownAdmin?: 'relay' | 'answer';
  /**
   * Stops the parent's listeners in the place of DrainListeners, which would also start Envoy's own drain: that one says
   * `Connection: close` by chance, per answer, and to every answer after --drain-time-s, whatever the pace of ours. When it
   * rejects, DrainListeners is relayed.
   */
  readonly stopListeners?: () => Promise<unknown>;
  /** For `answer` and for a parent that is gone: start of the first epoch, in Unix seconds. Default: now. */
  readonly originalStartSeconds?: number;
}

export interface PlayParentOptions extends HandoverOptions {
  readonly child: Party;
  readonly kept: import('./kept.ts').KeptSockets;
  readonly originalStartSeconds?: number;
}

/**
 * A handover under way. Start it, then launch the child; both names are bound when the function's promise resolves.
 * Neither promise ever causes an unhandled rejection.
 */
export interface Handover {
  /** The child serves. Rejects: EPOCH_TIMEOUT, EPOCH_DIED (child's pid ended), or the signal's reason. */
  readonly drainRequested: Promise<{ readonly at: number }>;
  /** The terminate request was swallowed: the epochs are independent, and the broker's sockets are closed. */
  readonly independent: Promise<{ readonly at: number }>;
  /** Every listen socket asked for so far. */
  readonly passed: readonly Passed[];
  /** Start of the first epoch in Unix seconds, once the child has asked for it. */
  readonly originalStartSeconds: number | undefined;
  /** The child's pid, when it was not known at the start: its death is then noticed at once. */
  watchChild(pid: number): void;
  /** Ends the handover and releases the names. Safe to call twice. */
  close(): void;
}
