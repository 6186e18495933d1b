import { BlockList, isIP } from 'node:net';
import type { Connection } from './connections.ts';
import { type AtDeadline, DEFAULT_CUT_ORDER, type DrainPolicy, type PolicyRule } from './policy.ts';

/** How policy treats one connection, and which of its rules says so. Durations in milliseconds. */
export interface Treatment {
  /** Name of the rule, or `default` where none matched. */
  readonly rule: string;
  /** It is told to leave. */
  readonly nudge: boolean;
  /** It is waited for: always, or for `protectMs` from the start of the drain. */
  readonly protect: boolean;
  readonly protectMs?: number;
  readonly silentIdleGraceMs: number;
  readonly cutOrder: number;
  readonly atDeadline: AtDeadline;
}

export const DEFAULT_RULE = 'default';

/** What policy says of this connection: by its first rule that matches, and by protocol where that is silent. */
export function treatmentOf(policy: DrainPolicy, connection: Connection): Treatment {
  const rule = policy.rules.find((one) => matches(one, connection));
  const protectMs = rule?.protectMs;
  return {
    rule: rule?.name ?? DEFAULT_RULE,
    nudge: rule?.nudge ?? nudgedByDefault(policy, connection),
    protect: rule?.protect ?? protectedByDefault(policy, connection),
    ...(protectMs !== undefined && { protectMs }),
    silentIdleGraceMs: rule?.silentIdleGraceMs ?? policy.http1.silentIdleGraceMs,
    cutOrder: rule?.cutOrder ?? DEFAULT_CUT_ORDER,
    atDeadline: rule?.atDeadline ?? policy.atDeadline,
  };
}

/**
 * The policy wants some told to leave and others not, or in another order than by age: the pressure, which knows ages
 * only, can not do that; the lever `mark` can.
 */
export function needsMarks(policy: DrainPolicy): boolean {
  return policy.rules.some((rule) => rule.nudge === false) || policy.pacing.order === 'idlest';
}

function nudgedByDefault(policy: DrainPolicy, { protocol }: Connection): boolean {
  return protocol === 'http2' || protocol === 'http3' ? policy.http2.goaway : true;
}

function protectedByDefault(policy: DrainPolicy, { protocol }: Connection): boolean {
  if (protocol === 'upgrade') return policy.upgrades.protect;
  if (protocol === 'tcp') return policy.tcp.protect;
  return true;
}

function matches({ match }: PolicyRule, connection: Connection): boolean {
  const { listeners, protocols, routes, peers } = match;
  const { route } = connection;
  return (
    (protocols === undefined || protocols.includes(connection.protocol)) &&
    (listeners === undefined || listeners.some((glob) => globMatches(glob, connection.listener))) &&
    (routes === undefined || (route !== undefined && routes.some((glob) => globMatches(glob, route)))) &&
    (peers === undefined || inBlocks(peers, connection.peer))
  );
}

/** `*` stands for any text, everything else for itself. Linear in the text for each star. */
export function globMatches(glob: string, text: string): boolean {
  const [first = '', ...rest] = glob.split('*');
  if (!text.startsWith(first)) return false;
  if (rest.length === 0) return text.length === first.length;
  const last = rest.pop() as string;
  let at = first.length;
  for (const part of rest) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - at >= last.length && text.endsWith(last);
}

const blocks = new WeakMap<readonly string[], BlockList>();

function inBlocks(peers: readonly string[], peer: string): boolean {
  const address = hostOf(peer);
  const family = isIP(address);
  if (family === 0) return false;
  let list = blocks.get(peers);
  if (list === undefined) {
    list = blockList(peers);
    blocks.set(peers, list);
  }
  return list.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/** Throws a RangeError or TypeError for what is neither an address nor a CIDR block. */
export function blockList(peers: readonly string[]): BlockList {
  const list = new BlockList();
  for (const peer of peers) {
    const [address = '', prefix] = peer.split('/');
    const family = isIP(address);
    if (family === 0) throw new TypeError(`${JSON.stringify(peer)} is neither an address nor a CIDR block`);
    const type = family === 6 ? 'ipv6' : 'ipv4';
    if (prefix === undefined) list.addAddress(address, type);
    else if (!/^\d{1,3}$/.test(prefix)) throw new TypeError(`${JSON.stringify(peer)} has no prefix length`);
    else list.addSubnet(address, Number(prefix), type);
  }
  return list;
}

function hostOf(peer: string): string {
  const bracketed = /^\[(.+)\]:\d+$/.exec(peer);
  if (bracketed) return (bracketed[1] as string).replace(/%.*$/, '');
  const colon = peer.lastIndexOf(':');
  return colon < 0 ? peer : peer.slice(0, colon);
}
