import type { Connection } from '@sluice/contract';
import type { KernelSocket } from './kernel.ts';

/**
 * The connections with the kernel's word on whose client has not taken all of its answer. They are one when their clients'
 * addresses are: behind REDIRECT the local ones differ. A socket that no connection claims (PROXY protocol: Envoy knows
 * the client that it was told of) may be that of any connection which no socket is known of.
 */
export function withAnswering(
  connections: readonly Connection[],
  sockets: readonly KernelSocket[],
): readonly Connection[] {
  const unsent = sockets.filter((one) => one.unsent).map(peerOf);
  if (unsent.length === 0) return connections;
  const known = new Set(sockets.map(peerOf));
  const claimed = new Set(connections.map(peerOf));
  const strangers = unsent.some((peer) => !claimed.has(peer));
  const answering = new Set(unsent);
  return connections.map((one) => {
    const peer = peerOf(one);
    return answering.has(peer) || (strangers && !known.has(peer)) ? { ...one, answering: true } : one;
  });
}

/** Envoy writes an IPv4 client of an IPv6 listener as IPv4; the kernel does not. */
function peerOf({ peer }: { readonly peer: string }): string {
  const mapped = /^\[::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})\](:\d+)$/i.exec(peer);
  if (mapped === null) return peer;
  const [high, low] = [Number.parseInt(mapped[1] as string, 16), Number.parseInt(mapped[2] as string, 16)];
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}${mapped[3]}`;
}
