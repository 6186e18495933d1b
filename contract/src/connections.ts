export type Protocol = 'unknown' | 'http1' | 'http2' | 'http3' | 'upgrade' | 'tcp';

/** Order = the number that stands for the protocol in a filter report. */
export const PROTOCOLS: readonly Protocol[] = ['unknown', 'http1', 'http2', 'http3', 'upgrade', 'tcp'];

/** What is known of one downstream connection of one epoch. Times are epoch milliseconds. */
export interface Connection {
  readonly epoch: number;
  /** Envoy's connection id; unique within an epoch only. Decimal, because it is a u64. */
  readonly id: string;
  /** `ip:port` of the client, or its Unix socket path. */
  readonly peer: string;
  /** Local address the client connected to, `ip:port`. */
  readonly local: string;
  readonly listener: string;
  /** `unknown` until a request was seen since the drain began (the steady state looks at no request). */
  readonly protocol: Protocol;
  readonly openedAt: number;
  /** Requests begun since the drain's filter was applied and not ended; undefined = not known. */
  readonly inFlight?: number;
  readonly bytes?: number;
  /** Last request or data seen since the drain began; undefined = none seen. */
  readonly lastActivityAt?: number;
  /** Name of the route of its newest request, seen since the drain began (of an upgrade: always). */
  readonly route?: string;
  /** Bytes for its client wait in the kernel: Envoy may hold more of an answer that it counts as ended. */
  readonly answering?: boolean;
  /** It was chosen to leave with its next response (lever `mark`). */
  readonly marked?: boolean;
  /** When its turn to leave came; undefined: not yet, or nobody takes turns. */
  readonly toldAt?: number;
}

export function connectionKey(c: { epoch: number; id: string }): string {
  return `${c.epoch}/${c.id}`;
}
