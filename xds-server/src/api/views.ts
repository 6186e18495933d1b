import {
  type AgentView,
  type Connection,
  completePolicy,
  DEFAULT_RULE,
  type DrainPolicy,
  type ExplainItem,
  type HeldConnection,
  type ProxyView,
  type RecordEntry,
  treatmentOf,
  type UpgradeView,
  type XdsTypeView,
} from '@sluice/contract';
import { deadlineOf } from '../drain/machine.ts';
import type { UpgradeState } from '../drain/state.ts';
import { type AgentEntry, type Agents, isLiving } from '../link/agents.ts';

/** What the API shows, made of plain state. Nothing here reads a clock or a socket. */

export function upgradeView(state: UpgradeState, record?: readonly RecordEntry[]): UpgradeView {
  const deadlineAt = deadlineOf(state);
  return present({
    id: state.id,
    proxy: state.proxy,
    phase: state.phase,
    reason: state.reason,
    target: state.target,
    policy: completePolicy(state.policy),
    from: state.from,
    to: state.to,
    method: state.method,
    epoch: state.epoch,
    oldEpoch: state.oldEpoch,
    createdAt: state.createdAt,
    phaseSince: state.phaseSince,
    drainStartedAt: state.order?.issuedAt,
    safeToResetAt: state.safeToResetAt,
    resetAt: state.resetAt,
    deadlineAt,
    order:
      state.order === undefined
        ? undefined
        : present({
            version: state.order.version,
            ackedAt: state.orderAckedAt,
            nack: state.orderNack,
            appliedAt: state.orderAppliedAt,
            via: state.orderVia,
          }),
    verdict: state.verdict,
    checks: state.checks,
    override: state.override,
    connections: state.connections,
    failure: state.failure,
    firstEstimate: state.firstEstimate,
    rollbackOf: state.rollbackOf,
    rollbackId: state.rollbackId,
    record,
  });
}

export type XdsView = ProxyView['xds'];

const ALONE = { self: undefined, isLive: () => false };

export function proxyView(
  proxy: string,
  agents: Agents,
  upgrades: readonly UpgradeState[],
  xds: readonly { epoch: number; types: readonly XdsTypeView[] }[],
  /** Name of this replica, and whether another one lives: an agent that is linked to it is connected. */
  replicas: { readonly self: string | undefined; isLive(id: string): boolean } = ALONE,
): ProxyView {
  const isThere = ({ link, replica }: AgentEntry) =>
    link !== undefined || (replica !== undefined && replicas.isLive(replica));
  const entries = agents.of(proxy);
  const serving = agents.serving(proxy);
  return {
    proxy,
    connected: entries.some(isThere),
    agents: entries.map(
      (one): AgentView =>
        present({
          slot: one.slot,
          connected: isThere(one),
          since: one.since,
          agentVersion: one.agentVersion,
          versions: one.versions,
          agentRss: one.agentRss,
          replica: one.link !== undefined ? replicas.self : isThere(one) ? one.replica : undefined,
        }),
    ),
    epochs: entries
      .flatMap((one) => one.epochs)
      .filter(isLiving)
      .sort((a, b) => a.epoch - b.epoch),
    ...(serving === undefined
      ? {}
      : { serving: { epoch: serving.epoch, version: serving.version, slot: serving.slot } }),
    upgrades: upgrades.map((one) => one.id),
    xds,
  };
}

/** Why one upgrade is not over yet, and what a reset now would cut. */
export function explainItem(state: UpgradeState, agentThere: boolean, now: number): ExplainItem {
  const { verdict } = state;
  const held = verdict?.held ?? [];
  const orderOf = (one: HeldConnection): number => treatmentOf(state.policy, one.connection).cutOrder;
  const wouldCut = held.filter(holdsSomething).sort((a, b) => orderOf(a) - orderOf(b));
  const deadlineAt = deadlineOf(state);
  const untils = held.flatMap((one) => (one.until !== undefined && one.until > now ? [one.until] : []));
  const moments = [...untils, ...(deadlineAt !== undefined && deadlineAt > now ? [deadlineAt] : [])];
  return present({
    upgradeId: state.id,
    phase: state.phase,
    oldEpoch: state.oldEpoch,
    safe: verdict?.safe ?? false,
    why: why(state, agentThere, now),
    held,
    wouldCut,
    wouldCutTotal: cutTotal(verdict, wouldCut),
    total: verdict?.total ?? 0,
    protected: verdict?.protected ?? 0,
    witnesses: verdict?.witnesses ?? [],
    nextChangeAt: moments.length === 0 ? undefined : Math.min(...moments),
    deadlineAt,
    estimate: verdict?.estimate,
    pacing: verdict?.pacing,
    cost: verdict?.cost,
    policy: state.policy,
    limit: verdict?.limit,
    hint: hint(state, agentThere),
  });
}

/** The list is bounded, the agent's count is not; an agent from before it counted has the list alone. */
function cutTotal(verdict: UpgradeState['verdict'], named: readonly HeldConnection[]): number {
  return Math.max(verdict?.holding ?? 0, named.length);
}

/** A silent idle HTTP/1 connection holds nothing that its client would miss; all others may. */
function holdsSomething(one: HeldConnection): boolean {
  // An agent from before rules existed does not say it.
  return one.holds ?? one.reason !== 'silent-idle-grace';
}

const REASON_TEXT: Record<HeldConnection['reason'], string> = {
  'request-in-flight': 'a request in flight',
  'streams-finishing': 'HTTP/2 streams that may not have ended',
  upgrade: 'a WebSocket or another upgrade, which policy waits for',
  tcp: 'a TCP session, which policy waits for',
  'may-hold-a-request': 'maybe a request that began before the drain',
  unseen: 'nothing that the filter knows of, but the kernel or Envoy counts it',
  'told-to-leave': 'nothing; its GOAWAY is out and it has not left yet',
  'waits-its-turn': 'nothing seen; its turn to be told to leave has not come',
  'not-told': 'nothing seen; policy does not tell it to leave',
  'no-lever': 'nothing seen; nobody knows what makes a connection of this Envoy version leave, so it is left alone',
  'silent-idle-grace': 'nothing; it is silent HTTP/1 within its grace',
};

function why(state: UpgradeState, agentThere: boolean, now: number): string[] {
  const lines: string[] = [];
  const { verdict, order } = state;
  if (!agentThere) lines.push('The agent is not connected: what is said here is as it was last heard.');
  if (state.phase !== 'Draining' || verdict === undefined) lines.push(`${state.phase}: ${state.reason}.`);
  if (state.phase === 'Draining' && order !== undefined && state.orderAppliedAt === undefined) {
    const seconds = Math.round((now - order.issuedAt) / 1000);
    lines.push(`The drain order was given ${seconds} s ago and has not been applied yet.`);
  }
  if (state.orderNack !== undefined) lines.push(`Envoy refused the drain order: ${state.orderNack}`);
  if (verdict === undefined || state.resetAt !== undefined) return lines;
  const groups = new Map<string, [HeldConnection, ...HeldConnection[]]>();
  for (const one of verdict.held.filter((each) => each.protected)) {
    const group = groups.get(`${one.reason}/${one.rule}`);
    if (group === undefined) groups.set(`${one.reason}/${one.rule}`, [one]);
    else group.push(one);
  }
  // Of a list that was cut short a count says the least.
  const least = verdict.held.length < verdict.total ? 'at least ' : '';
  for (const all of groups.values()) lines.push(sentence(all, now, least));
  if (verdict.protected > 0 && verdict.held.length < verdict.total) {
    lines.push(`${verdict.total} connections are left, ${verdict.protected} of them protected; not all are named.`);
  }
  if (verdict.disagreement !== undefined) lines.push(`The witnesses differ: ${verdict.disagreement}.`);
  for (const witness of verdict.witnesses) {
    if (witness.open === undefined)
      lines.push(`The witness ${witness.name} can not be heard: ${witness.why ?? 'silent'}.`);
  }
  lines.push(...releasedSentences(verdict.held, least));
  if (verdict.pastDeadline) lines.push(limitSentence(verdict.limit, state.policy));
  if (verdict.overBudget && verdict.limit === 'time') lines.push(limitSentence('memory', state.policy));
  if (lines.length === 0) lines.push(`${verdict.summary}.`);
  return lines;
}

const RELEASED_TEXT: Record<NonNullable<HeldConnection['released']>, string> = {
  policy: 'policy does not wait for it',
  'protection-over': 'its rule protected it for a time that is over',
  deadline: 'the maximum drain time is over',
  memory: 'the lingering epochs hold more memory than policy allows',
};

/** Those that hold something and are not waited for, by rule and cause. */
function releasedSentences(held: readonly HeldConnection[], least: string): string[] {
  const groups = new Map<string, { one: HeldConnection; count: number }>();
  for (const one of held) {
    if (one.released === undefined) continue;
    const key = JSON.stringify([one.rule, one.released]);
    groups.set(key, { one, count: (groups.get(key)?.count ?? 0) + 1 });
  }
  return [...groups.values()].map(({ one, count }) => {
    const who =
      count === 1 ? `${one.connection.peer} (${one.connection.protocol}) is` : `${least}${count} connections are`;
    return `${who} not waited for, by rule ${one.rule}: ${RELEASED_TEXT[one.released as keyof typeof RELEASED_TEXT]}.`;
  });
}

function limitSentence(limit: 'time' | 'memory' | undefined, policy: DrainPolicy): string {
  const says = `policy says: ${policy.atDeadline}`;
  return limit === 'memory'
    ? `The lingering epochs hold more than policy's ${policy.memory.budgetMiB} MiB, and this is the one to give up; ${says}.`
    : `The maximum drain time is over; ${says}.`;
}

function sentence(all: readonly [HeldConnection, ...HeldConnection[]], now: number, least: string): string {
  const [{ reason, rule = DEFAULT_RULE }] = all;
  const names = all.slice(0, 3).map((one) => name(one.connection, now));
  const more = all.length > names.length ? ` and ${least}${all.length - names.length} more` : '';
  const until = Math.max(...all.map((one) => one.until ?? 0));
  const left = until > now ? `, for ${Math.ceil((until - now) / 1000)} s at most` : '';
  const verb = all.length === 1 ? 'holds' : 'hold';
  return `${names.join(', ')}${more} ${verb} ${REASON_TEXT[reason]}${left}${rule === DEFAULT_RULE ? '' : ` (rule ${rule})`}.`;
}

function name(connection: Connection, now: number): string {
  const age = Math.max(0, Math.round((now - connection.openedAt) / 1000));
  if (connection.peer === '') return 'A connection without a name';
  const where = connection.listener === '' ? connection.local : connection.listener;
  return `${connection.peer} on ${where} (${connection.protocol}, ${age} s old)`;
}

function hint(state: UpgradeState, agentThere: boolean): string {
  if (!agentThere) return 'start the agent, or wait: it goes on alone and reports when it is back';
  switch (state.phase) {
    case 'Idle':
      return 'wait for the upgrade before it, or abort';
    case 'Preflight':
    case 'Starting':
      return 'wait, or abort';
    case 'Draining':
      return 'wait, or reset with an override and a reason; what it would cut is listed';
    case 'SafeToReset':
    case 'Resetting':
      return 'wait: the old epoch is being ended';
    default:
      return 'nothing to do';
  }
}

/** The object without its undefined fields. */
function present<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as never;
}
