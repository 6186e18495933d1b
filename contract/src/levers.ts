import type { Connection, Protocol } from './connections.ts';

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

export interface Evidence {
  readonly kind: 'measured' | 'read' | 'assumed';
  /** Envoys that it was seen on; none where it was not measured. */
  readonly on: readonly string[];
  readonly note: string;
}

export interface Lever {
  readonly lever: LeverName;
  readonly effect: string;
  /** How the connection ends for its client; held against real Envoys by test/matrix. */
  readonly expect: Outcome;
  /** True when a request can be lost to it; such a lever needs policy's word. */
  readonly racy: boolean;
  readonly evidence: Evidence;
}

export interface LeverRow extends Lever {
  /** Minor versions of Envoy 1.x, both ends included. */
  readonly from: number;
  readonly to: number;
  readonly protocols: readonly Protocol[];
  readonly states: readonly LeverState[];
}

export const OLDEST_ENVOY = 36;
export const NEWEST_ENVOY = 40;
const ALL = { from: OLDEST_ENVOY, to: NEWEST_ENVOY } as const;
const EACH = ['1.36.4', '1.37.0', '1.38.3', '1.39.3', '1.40.0'] as const;

const LIVES_ON = {
  lever: 'wait',
  expect: 'lived-on',
  effect: 'lives on until it ends by itself',
  racy: false,
} as const;

/** In the state that they are in when the order comes. One row for each version, protocol and state. */
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
      on: EACH,
      note: 'idle, without a request, busy, long stream, large upload, gRPC unary, server stream and bidi, WebSocket over CONNECT: test/matrix',
    },
  },
  {
    ...ALL,
    protocols: ['http1', 'http2', 'unknown'],
    states: ['new'],
    lever: 'age-pressure',
    expect: 'closed',
    effect:
      'FIN without a word, once it is two seconds old: no byte has come, so Envoy has no codec that could say one; a first request that comes at that very moment is lost',
    racy: true,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'conn_manager_impl.cc, onConnectionDurationTimeout; over TLS with either ALPN, and bare, where nobody knows what it will speak: test/matrix; without the two seconds 25 to 76 of 1,300 slow handshakes were lost',
    },
  },
  {
    ...ALL,
    protocols: ['http3'],
    states: ['active'],
    lever: 'age-pressure',
    expect: 'goaway',
    effect:
      'GOAWAY as for HTTP/2, also by Envoy’s own drain, which a handover of QUIC needs; seen by the admin’s count only, so no rule or pace is for it. TCP connections beside it have no pace either (policies.md)',
    racy: false,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'an Envoy as the client counted GOAWAYs, and no request failed; the parent passes its child’s packets on through the broker for as long as it lives: test/matrix/quic.test.ts',
    },
  },
  {
    ...ALL,
    protocols: ['http3'],
    states: ['new', 'idle', 'answering'],
    lever: 'age-pressure',
    expect: 'goaway',
    effect: 'as where a request is on it',
    racy: false,
    evidence: {
      kind: 'read',
      on: [],
      note: 'conn_manager_impl.cc, onConnectionDurationTimeout; a QUIC connection has its codec from the start',
    },
  },
  {
    ...ALL,
    protocols: ['http1'],
    states: ['active', 'answering'],
    lever: 'age-pressure',
    expect: 'connection-close',
    effect:
      '`Connection: close` on the answer to the next request that begins, then FIN; what is under way is not touched, and one that asks no more is idle',
    racy: false,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'busy, pipelined, slow head, upload and download, trailers, 100-continue, HTTP/1.0, with http1_safe_max_connection_duration: test/matrix',
    },
  },
  {
    ...ALL,
    protocols: ['http1'],
    states: ['idle'],
    lever: 'idle-close',
    expect: 'closed',
    effect:
      'left alone for policy’s grace and told by its next answer; closed when it stays silent, by the filter or, on an Envoy without V8, by the agent through the kernel; a request that comes at that very moment is lost',
    racy: true,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'over plain TCP, TLS, mTLS, PROXY protocol, IPv6, Unix socket: test/matrix; the race and the policies that avoid it: docs/measured.md',
    },
  },
  {
    ...ALL,
    protocols: ['unknown'],
    states: ['idle'],
    lever: 'idle-close',
    expect: 'closed',
    effect: 'as for HTTP/1; one that is HTTP/2 was told by the pressure before its grace is over',
    racy: true,
    evidence: {
      kind: 'read',
      on: [],
      note: 'the agent knows the protocol with the first request after the order, so the idle ones of test/matrix are this to it, each under the protocol of its client',
    },
  },
  {
    ...ALL,
    protocols: ['unknown'],
    states: ['active', 'answering'],
    lever: 'age-pressure',
    expect: 'connection-close',
    effect: 'as for the protocol that it turns out to be',
    racy: false,
    evidence: {
      kind: 'read',
      on: [],
      note: 'conn_manager_impl.cc: the pressure works on the connection, whatever the filter knows of it',
    },
  },
  {
    ...ALL,
    protocols: ['upgrade'],
    states: ['new', 'idle', 'active'],
    ...LIVES_ON,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'WebSocket, plain and over TLS, talking, silent and without a frame: test/matrix; 1.40 needs the guard use_connection_event_drain=false, without which its own drain reset it',
    },
  },
  {
    ...ALL,
    protocols: ['upgrade'],
    states: ['answering'],
    ...LIVES_ON,
    evidence: {
      kind: 'assumed',
      on: [],
      note: 'as a talking one; none of test/matrix is in the middle of a message when the order comes',
    },
  },
  {
    ...ALL,
    protocols: ['tcp'],
    states: ['new', 'idle', 'active'],
    ...LIVES_ON,
    evidence: {
      kind: 'measured',
      on: EACH,
      note: 'used, silent and unused, plain and over TLS: test/matrix; check_drain_close (1.39 and later) closes active sessions and stays off',
    },
  },
  {
    ...ALL,
    protocols: ['tcp'],
    states: ['answering'],
    ...LIVES_ON,
    evidence: {
      kind: 'assumed',
      on: [],
      note: 'as a talking one; none of test/matrix is in the middle of an answer when the order comes',
    },
  },
];

/** What policy can choose for single connections, beside what the table above does to all. */
export const CHOSEN_LEVERS: readonly LeverRow[] = [
  {
    from: 37,
    to: NEWEST_ENVOY,
    protocols: ['http1'],
    states: ['active'],
    lever: 'mark',
    expect: 'connection-close',
    effect: '`Connection: close` on its next answer, that of a request under way too',
    racy: false,
    evidence: {
      kind: 'measured',
      on: ['1.37.0', '1.39.3', '1.40.0'],
      note: 'where the filter runs (not the 1.38.3 of PyPI, which has no V8); 1.36.4 does not have the call',
    },
  },
  {
    from: 37,
    to: NEWEST_ENVOY,
    protocols: ['http2'],
    states: ['active'],
    lever: 'mark',
    expect: 'goaway',
    effect: 'GOAWAY with its next answer; open streams finish',
    racy: false,
    evidence: { kind: 'measured', on: ['1.37.0', '1.39.3', '1.40.0'], note: 'as for HTTP/1' },
  },
  {
    ...ALL,
    protocols: ['unknown', 'http1', 'http2', 'http3', 'upgrade', 'tcp'],
    states: LEVER_STATES,
    lever: 'cut',
    expect: 'cut',
    effect: 'ended with what is on it, when policy gives it up or a person overrides; each is named in the record',
    racy: true,
    evidence: {
      kind: 'measured',
      on: ['1.36.4', '1.37.0', '1.39.3', '1.40.0'],
      note: 'single ones by the filter, with requests in flight (test/e2e/mark.test.ts); all by the end of the process',
    },
  },
];

/** For an Envoy that nobody has looked at: nothing is claimed, nothing is closed. */
export const WEAKEST: Lever = {
  lever: 'wait',
  expect: 'lived-on',
  effect: 'it is waited for; nothing is known of this version',
  racy: false,
  evidence: { kind: 'assumed', on: [], note: `versions 1.${OLDEST_ENVOY} to 1.${NEWEST_ENVOY} were looked at` },
};

/** By version, as Envoys are few and connections many. */
const rowsOf = new Map<string, readonly LeverRow[]>();

/** The rows of an Envoy of this version (`1.38.3`, also `1.38.9`); none for a minor version not looked at. */
function rowsFor(version: string): readonly LeverRow[] {
  const known = rowsOf.get(version);
  if (known !== undefined) return known;
  const minor = minorOf(version);
  const rows = minor === undefined ? [] : LEVERS.filter((one) => one.from <= minor && minor <= one.to);
  rowsOf.set(version, rows);
  return rows;
}

/** The lever for a connection on an Envoy of this version; the weakest for a version not looked at. */
export function leverFor(version: string, protocol: Protocol, state: LeverState): Lever {
  return rowsFor(version).find((one) => one.protocols.includes(protocol) && one.states.includes(state)) ?? WEAKEST;
}

/** The same for one that is open. */
export function leverOf(version: string, connection: Connection): Lever {
  return leverFor(version, connection.protocol, stateOf(connection));
}

/** Some connection of this Envoy can be made to leave before it ends by itself. */
export function tellsAnybody(version: string): boolean {
  return rowsFor(version).some(({ lever }) => lever !== 'wait');
}

/** Whether policy can choose this lever for single connections of an Envoy of this version. */
export function canChoose(version: string, lever: LeverName): boolean {
  const minor = minorOf(version) ?? Number.NaN;
  return CHOSEN_LEVERS.some((one) => one.lever === lever && one.from <= minor && minor <= one.to);
}

/** For a person, where the weakest lever holds. */
export function whyWeakest(version: string): string {
  return `nobody has looked at Envoy ${version} (1.${OLDEST_ENVOY} to 1.${NEWEST_ENVOY} were looked at)`;
}

/** As far as anybody sees it: one that was never used is silent like any other. */
function stateOf({ answering, inFlight = 0 }: Connection): LeverState {
  if (answering === true) return 'answering';
  return inFlight > 0 ? 'active' : 'idle';
}

/** The minor version of an Envoy 1.x that was looked at; undefined: it was not. */
export function knownMinor(version: string): number | undefined {
  return rowsFor(version).length === 0 ? undefined : minorOf(version);
}

function minorOf(version: string): number | undefined {
  const match = /^v?1\.(\d{1,4})(?:\.|$|-)/.exec(version);
  return match === null ? undefined : Number(match[1]);
}
