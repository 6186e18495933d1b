import { isQuic, type Json } from '@sluice/contract/presets/index';
import type { AdminConnection } from './admin.ts';
import { mayListenByUdp } from './udp.ts';

interface Dump {
  readonly configs?: readonly {
    readonly active_state?: { readonly listener?: unknown };
    readonly listener?: unknown;
  }[];
}

/**
 * The addresses whose listeners speak HTTP on every filter chain, by the admin's config dump. Anything else, such as a
 * listener that could not be read, is left out and so counts as TCP, whose connections are never closed by us.
 */
export async function httpListenAddresses(admin: AdminConnection): Promise<string[]> {
  const listeners = await listenersOf(admin);
  return listeners.filter((one) => !isQuic(one) && speaksHttp(one)).flatMap(addressesOf);
}

export interface UdpListeners {
  readonly quic: { readonly names: readonly string[]; readonly addresses: readonly string[] };
  /** Addresses of those that are no QUIC. */
  readonly other: readonly string[];
}

/** An epoch. */
interface Asked {
  readonly process: { readonly pid: number };
  readonly admin: AdminConnection;
}

export const NO_UDP: UdpListeners = { quic: { names: [], addresses: [] }, other: [] };

/**
 * By the admin's config dump. Not asked where the process holds no socket for it: the dump is written by the main thread,
 * for all listeners at once, while requests wait for the same cores (4 to 6 ms for three of them).
 */
export async function udpListeners({ process, admin }: Asked): Promise<UdpListeners> {
  if (!mayListenByUdp(process.pid)) return NO_UDP;
  const all = await listenersOf(admin);
  const quic = all.filter((one) => isQuic(one));
  const other = all.filter((one) => !isQuic(one) && one.address?.socket_address?.protocol === 'UDP');
  return {
    quic: { names: quic.map(({ name }) => name || 'unnamed'), addresses: quic.flatMap(addressesOf) },
    other: other.flatMap(addressesOf),
  };
}

async function listenersOf(admin: AdminConnection): Promise<(Listener & Json)[]> {
  const found: (Listener & Json)[] = [];
  for (const resource of ['dynamic_listeners', 'static_listeners']) {
    const dump = JSON.parse(await admin.get(`/config_dump?resource=${resource}`, 5_000)) as Dump;
    for (const config of dump.configs ?? []) {
      const listener = (config.active_state?.listener ?? config.listener) as (Listener & Json) | undefined;
      if (listener) found.push(listener);
    }
  }
  return found;
}

interface SocketAddress {
  readonly protocol?: string;
  readonly address?: string;
  readonly port_value?: number;
}

interface Listener {
  readonly name?: string;
  readonly address?: { readonly socket_address?: SocketAddress; readonly pipe?: { readonly path?: string } };
  readonly additional_addresses?: readonly { readonly address?: Listener['address'] }[];
  readonly filter_chains?: readonly unknown[];
  readonly default_filter_chain?: unknown;
}

function speaksHttp(listener: Listener): boolean {
  const chains = [
    ...(listener.filter_chains ?? []),
    ...(listener.default_filter_chain ? [listener.default_filter_chain] : []),
  ];
  return chains.length > 0 && chains.every((c) => JSON.stringify(c).includes('.HttpConnectionManager"'));
}

function addressesOf(listener: Listener): string[] {
  const all = [listener.address, ...(listener.additional_addresses ?? []).map((a) => a.address)];
  return all.flatMap((address) => {
    if (address?.pipe?.path) return [address.pipe.path];
    const { address: ip, port_value: port } = address?.socket_address ?? {};
    if (ip === undefined || port === undefined) return [];
    return [ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`];
  });
}
