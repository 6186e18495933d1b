/**
 * Filter -> agent reports and the commands in the reply. Binary, little-endian, written without string concatenation
 * (envoy-facts: `+=` cost 429 ms a tick at 4,000 connections). POSTed to REPORT_PATH over the agent's Unix socket.
 *
 * Report: header, then `records` records, and nothing after them.
 *   header  magic 'SLR1' | u16 version=1 | u16 flags | u32 epoch | u32 seq | u64 vm | u64 nowNs | u64 orderVersion
 *           | u32 open | u64 openedTotal | u64 closedTotal | u64 requestsEnded | u32 records              (72 bytes)
 *     flags  bit 0 = first part of a snapshot (the agent forgets what it knew of this VM), bit 1 = last part of it,
 *            bit 2 = a drain order is in force, bit 3 = tracking: the VM sends every change (without it a report is a
 *            counter-only heartbeat, and what the agent knew of single connections is stale), bit 4 = more: this report
 *            was full, the rest follows at once, bit 5 = marks: this filter obeys mark and cut, and tells routes.
 *     epoch  NOT_KNOWN while the node metadata could not be read.
 *     seq    grows by one with each report of the VM; a gap means that one was lost.
 *     vm     random; tells the VMs (one per worker thread, and two more) apart.
 *     orderVersion  of the newest order this VM was given; 0 = none, or one that the agent itself gave (see bit 2).
 *     open   counts this VM's open connections now; after the last part of a snapshot and after every later delta
 *            without `more` the agent's table of the VM must have as many, or it asks for a new snapshot.
 *     requestsEnded  counts the requests that were part of some inFlight and ended. If it grew by n between two reports,
 *            at least (sum of inFlight in the first) - n requests known to the filter were in flight all the time between.
 *   record  u8 kind, then
 *     1 open    u64 id | u64 openedAtNs | u8 protocol | u8 flags (bit 0 TLS) | str listener | str peer | str local
 *               | u32 inFlight (0xffffffff = not known) | u64 bytes | u64 lastActivityNs (0 = none)
 *     2 update  u64 id | u8 protocol | u32 inFlight | u64 bytes | u64 lastActivityNs
 *     3 close   u64 id | u8 by (0 unknown, 1 Envoy, 2 peer, 3 our command) | u64 atNs
 *     4 order   u32 length | that many bytes: the drain order's JSON, repeated until a reply acknowledges its version
 *     5 route   u64 id | str route: name of the route of the newest request, empty = it has none. Follows the open or
 *               update of the same connection in the same report, and only when it changed or in a snapshot
 *   str     u8 length | bytes (cut at 255)
 *
 * A change of protocol or of inFlight is reported on the next tick, bytes and last activity at most once a second.
 *
 * Reply: magic 'SLC1' | u16 version=1 | u16 count | commands. An empty body = nothing to do. Status 200 accepts the
 * report; anything else makes the VM send a snapshot next.
 *   1 subscribe   u32 ms       track for that long from now; a snapshot comes first if the VM was not tracking. 0 ends it
 *   2 close       u64 id       close this connection (TCP close). The agent only names silent idle ones; the filter
 *                              refuses one that it knows to have a request in flight
 *   3 ackOrder    u64 version  the order of this version was received
 *   4 snapshot    -            send a snapshot, and the order again: the agent lost its state
 *   5 mark        u64 id       tell this connection to leave with its next response that begins. Repeating it does nothing;
 *                              an order that says stop lifts it
 *   6 cut         u64 id       close this connection (TCP close), requests in flight or not
 * 5 and 6 only to a VM that says `marks`: one that does not know a command drops the rest of the reply.
 */
export const REPORT_MAGIC = 'SLR1';
export const REPLY_MAGIC = 'SLC1';
export const REPORT_VERSION = 1;
export const NOT_KNOWN = 0xffffffff;
/** One report is at most this large; the filter splits a snapshot, the agent refuses more. */
export const MAX_REPORT_BYTES = 256 * 1024;
/** One reply is at most this large; what does not fit goes with the next one. */
export const MAX_REPLY_BYTES = 64 * 1024;
/** An order's JSON is at most this large. */
export const MAX_ORDER_BYTES = 32 * 1024;

export const FLAG = { snapshotFirst: 1, snapshotLast: 2, draining: 4, tracking: 8, more: 16, marks: 32 } as const;
export const RECORD = { open: 1, update: 2, close: 3, order: 4, route: 5 } as const;
export const COMMAND = { subscribe: 1, close: 2, ackOrder: 3, snapshot: 4, mark: 5, cut: 6 } as const;

/** Order = the number in a close record. */
export const CLOSED_BY = ['unknown', 'envoy', 'peer', 'command'] as const;
export type ClosedBy = (typeof CLOSED_BY)[number];
