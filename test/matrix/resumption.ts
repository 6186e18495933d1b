import type { TLSSocket } from 'node:tls';
import { Http1Connection, requestHead } from '../harness/load/http1-connection.ts';
import { askPath, ID_HEADER } from '../harness/upstream/answers.ts';
import type { Transport } from './bootstrap.ts';
import { Context, within } from './context.ts';
import type { Rig } from './rig.ts';

const NEVER = new Promise<void>(() => {});

/** One TLS connection and one request on it. TLS 1.3 sends its tickets after the handshake, so before the answer's end. */
async function visit(rig: Rig, transport: Transport, ticket?: Buffer): Promise<{ ticket: Buffer; resumed: boolean }> {
  const context = new Context({ name: 'tls', transport, moments: { told: NEVER, sessionsEnd: NEVER }, ...rig });
  try {
    const socket = (await context.connect('http/1.1', ticket)) as TLSSocket;
    const fresh = new Promise<Buffer>((resolve) => socket.once('session', resolve));
    const head = requestHead({ id: 'tls/0/0', path: askPath({}), host: 'tls', idHeader: ID_HEADER, close: true });
    const { status } = await new Http1Connection(socket).request(head, undefined, 10_000);
    if (status !== 200) throw new Error(`status ${status}`);
    return { ticket: await within('a session ticket', fresh), resumed: socket.isSessionReused() };
  } finally {
    context.close();
  }
}

export interface Resumption {
  /** A ticket is good on the epoch that gave it. */
  readonly sameEpoch: boolean;
  /** A ticket of the old epoch is good on the new one. */
  readonly nextEpoch: boolean;
}

/** Takes tickets, upgrades, and shows them to the new epoch. A ticket that is not taken costs a whole handshake, no request. */
export async function measureResumption(
  rig: Rig,
  transports: readonly Transport[],
  upgrade: () => Promise<void>,
): Promise<Map<Transport, Resumption>> {
  const before = new Map<Transport, { ticket: Buffer; sameEpoch: boolean }>();
  for (const transport of transports) {
    const first = await visit(rig, transport);
    const second = await visit(rig, transport, first.ticket);
    before.set(transport, { ticket: second.ticket, sameEpoch: second.resumed });
  }
  await upgrade();
  const found = new Map<Transport, Resumption>();
  for (const [transport, { ticket, sameEpoch }] of before) {
    const { resumed } = await visit(rig, transport, ticket);
    found.set(transport, { sameEpoch, nextEpoch: resumed });
  }
  return found;
}
