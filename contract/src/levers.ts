import type { Protocol } from './connections.ts';

/**
 * What makes a connection of a draining epoch leave, by Envoy version, protocol and state: data, with the evidence for
 * each line. `measured` was seen on real binaries, `read` stands in Envoy's source, `assumed` has not been looked at.
 */
export type LeverName =
  /** Pressure file -> reduce_timeouts scaling the maximum connection duration; an age cut-off. */
  | 'age-pressure'
  /** A silent idle connection is closed after its grace, on the agent's word. */
  | 'idle-close'
  /** The filter marks the chosen connection; it leaves with its next response (Lua drainConnectionUponCompletion). */
  | 'mark'
  /** Ended by us with a request or a session on it: policy's word, or an override. */
  | 'cut'
  /** Nothing is done: it is waited for, or cut at the reset as policy says. */
  | 'wait';

/**
 * `new`: accepted, and nothing was ever sent on it. `idle`: asked before, silent now. `active`: a request or session is on
 * it. `answering`: the head of the answer is out already, so no word can be added to it.
 */
export type LeverState = 'new' | 'idle' | 'active' | 'answering';
export const LEVER_STATES: readonly LeverState[] = ['new', 'idle', 'active', 'answering'];

/**
 * How a connection ends for its client: told by GOAWAY; told by `Connection: close`, then FIN; FIN without a word; lived on
 * until its client ended it; cut with a request or session on it.
 */
export type Outcome = 'goaway' | 'connection-close' | 'closed' | 'lived-on' | 'cut';

export interface Lever {
  readonly lever: LeverName;
  readonly effect: string;
  /** How the connection ends for its client; held against real Envoys by test/matrix. */
  readonly expect: Outcome;
  /** True when a request can be lost to it; such a lever needs policy's word. */
  readonly racy: boolean;
  readonly evidence: { readonly kind: 'measured' | 'read' | 'assumed'; readonly note: string };
}

interface LeverRow extends Lever {
  /** Minor versions of Envoy 1.x, both ends included. */
  readonly from: number;
  readonly to: number;
  readonly protocols: readonly Protocol[];
  readonly states: readonly LeverState[];
}

export const OLDEST_ENVOY = 36;
export const NEWEST_ENVOY = 40;
const ALL = { from: OLDEST_ENVOY, to: NEWEST_ENVOY } as const;

export const LEVERS: readonly LeverRow[] = [
  {
    ...ALL,
    protocols: ['http2'],
    states: ['idle', 'active', 'answering'],
    lever: 'age-pressure',
    expect: 'goaway',
    effect:
      'a graceful GOAWAY within the refresh interval; open streams finish, an idle connection closes after drain_timeout',
    racy: false,
    evidence: {
      kind: 'measured',
      note: 'on 1.36.4, 1.38.3 and 1.40.0, on a parent after hot restart: idle, busy and long-streaming; a 14 s request in flight ended with 200',
    },
  },
  {
    ...ALL,
    protocols: ['http1', 'http2', 'unknown'],
    states: ['new'],
    lever: 'age-pressure',
    expect: 'closed',
    effect: 'FIN at once, with no word: Envoy has no codec yet that could say one',
    racy: true,
    evidence: {
      kind: 'measured',
      note: 'conn_manager_impl.cc, onConnectionDurationTimeout, `!codec_`; hence nothing younger than two seconds is told (FRESH_MS)',
    },
  },
  {
    ...ALL,
    protocols: ['http3'],
    states: ['new', 'idle', 'active', 'answering'],
    lever: 'age-pressure',
    effect: 'GOAWAY as for HTTP/2',
    expect: 'goaway',
    racy: false,
    evidence: {
      kind: 'read',
      note: 'the same code path of the connection manager; UDP listeners are refused by preflight',
    },
  },
  {
    ...ALL,
    protocols: ['http1'],
    states: ['active', 'answering'],
    lever: 'age-pressure',
    expect: 'connection-close',
    effect:
      '`Connection: close` on the response to the next request that begins, then FIN; answers under way are not touched',
    racy: false,
    evidence: {
      kind: 'measured',
      note: 'with http1_safe_max_connection_duration, on 1.36.4, 1.38.3 and 1.40.0',
    },
  },
  {
    ...ALL,
    protocols: ['http1', 'unknown'],
    states: ['idle'],
    lever: 'idle-close',
    expect: 'closed',
    effect:
      'left alone for policy’s grace and told to leave by its next response; closed when it stays silent, by the filter or, on an Envoy without V8, by the agent through the kernel',
    racy: true,
    evidence: {
      kind: 'measured',
      note: 'with http1_safe_max_connection_duration a silent idle one is left alone; a server-side close raced a request (ECONNRESET), hence the grace',
    },
  },
  {
    ...ALL,
    protocols: ['unknown'],
    states: ['active', 'answering'],
    lever: 'age-pressure',
    effect: 'as for the protocol that it turns out to be',
    expect: 'connection-close',
    racy: false,
    evidence: { kind: 'measured', note: 'the pressure works on the connection, whatever the filter knows of it' },
  },
  {
    ...ALL,
    protocols: ['upgrade'],
    states: LEVER_STATES,
    lever: 'wait',
    effect: 'lives on until it ends by itself',
    expect: 'lived-on',
    racy: false,
    evidence: {
      kind: 'measured',
      note: 'a WebSocket lived on under full pressure; 1.40 needs the guard use_connection_event_drain=false, without which its own drain reset it',
    },
  },
  {
    ...ALL,
    protocols: ['tcp'],
    states: LEVER_STATES,
    lever: 'wait',
    effect: 'lives on until it ends by itself',
    expect: 'lived-on',
    racy: false,
    evidence: {
      kind: 'read',
      note: 'tcp_proxy sessions end only with the process; check_drain_close (1.39 and later) closes active sessions and stays off',
    },
  },
];

/** For an Envoy that nobody has looked at: nothing is claimed, nothing is closed. */
export const WEAKEST: Lever = {
  lever: 'wait',
  expect: 'lived-on',
  effect: 'it is waited for; nothing is known of this version',
  racy: false,
  evidence: { kind: 'assumed', note: `versions 1.${OLDEST_ENVOY} to 1.${NEWEST_ENVOY} were looked at` },
};

/** The lever for a connection on an Envoy of this version (`1.38.3`); the weakest for a version not looked at. */
export function leverFor(version: string, protocol: Protocol, state: LeverState): Lever {
  const minor = minorOf(version);
  const row = LEVERS.find(
    (one) =>
      minor !== undefined &&
      one.from <= minor &&
      minor <= one.to &&
      one.protocols.includes(protocol) &&
      one.states.includes(state),
  );
  if (row === undefined) return WEAKEST;
  const { lever, effect, expect, racy, evidence } = row;
  return { lever, effect, expect, racy, evidence };
}

function minorOf(version: string): number | undefined {
  const match = /^v?1\.(\d{1,4})(?:\.|$|-)/.exec(version);
  return match === null ? undefined : Number(match[1]);
}
