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

/** Treatments by what a policy's rules look at: thousands of connections are asked about many times a second. */
interface Known {
  readonly looksAt: { readonly listeners: boolean; readonly routes: boolean; readonly peers: boolean };
  readonly treatments: Map<string, Treatment>;
}

const known = new WeakMap<DrainPolicy, Known>();
const MAX_KNOWN = 50_000;

/** What policy says of this connection: by its first rule that matches, and by protocol where that is silent. */
export function treatmentOf(policy: DrainPolicy, connection: Connection): Treatment {
  let { looksAt, treatments } = known.get(policy) ?? {};
  if (looksAt === undefined || treatments === undefined) {
    const some = (field: 'listeners' | 'routes' | 'peers') =>
      policy.rules.some(({ match }) => match[field] !== undefined);
    looksAt = { listeners: some('listeners'), routes: some('routes'), peers: some('peers') };
    treatments = new Map();
    known.set(policy, { looksAt, treatments });
  }
  const listener = looksAt.listeners ? connection.listener : '';
  const route = looksAt.routes ? connection.route : undefined;
  const host = looksAt.peers ? hostOf(connection.peer) : '';
  // With the lengths, no two different ones are one key.
  const key = `${connection.protocol} ${listener.length} ${route?.length ?? '-'} ${listener}${route ?? ''}${host}`;
  const found = treatments.get(key);
  if (found !== undefined) return found;
  if (treatments.size >= MAX_KNOWN) treatments.clear();
  const treatment = treat(policy, connection);
  treatments.set(key, treatment);
  return treatment;
}

function treat(policy: DrainPolicy, connection: Connection): Treatment {
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
  const { http2, rules, pacing } = policy;
  return rules.some(({ nudge }) => nudge !== undefined && nudge !== http2.goaway) || pacing.order === 'idlest';
}

/** Somebody may be left alone: the pressure, which tells everybody, is out of the question while such a one is open. */
export function leavesSomeAlone({ http2, rules }: DrainPolicy): boolean {
  return !http2.goaway || rules.some((rule) => rule.nudge === false);
}

function nudgedByDefault(policy: DrainPolicy, { protocol }: Connection): boolean {
  if (policy.http2.goaway) return true;
  // One that is not known yet may be HTTP/2. Without marks nobody is told, HTTP/1 neither.
  return protocol === 'http1' && needsMarks(policy);
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
    const [address = '', prefix, ...more] = peer.split('/');
    const family = isIP(address);
    if (family === 0 || more.length > 0)
      throw new TypeError(`${JSON.stringify(peer)} is neither an address nor a CIDR block`);
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
