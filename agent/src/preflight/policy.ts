import {
  type CheckResult,
  canChoose,
  DEFAULT_POLICY,
  type DrainPolicy,
  globMatches,
  needsMarks,
  type PolicyRule,
  tellsAnybody,
  whyWeakest,
} from '@sluice/contract';
import { failed, passed } from './result.ts';

/** What is known of the epoch that is to drain. */
export interface Drainable {
  readonly version: string;
  /** It runs the filter. */
  readonly wasm: boolean;
  /** Single connections can be told to leave. */
  readonly leave?: boolean;
  /** Names of its QUIC listeners. */
  readonly quic?: readonly string[];
}

/**
 * Whether the serving epoch can be drained as policy says. Whoever policy wants left alone must not be told with the
 * others, so a rule that this Envoy can not keep is refused; an order of leaving that it can not keep is only said. Of an
 * Envoy that the levers table does not know nobody is told (checkLevers says it), so nobody is told wrongly.
 * `policy`: complete.
 */
export function checkPolicy(policy: DrainPolicy, serving: Drainable): CheckResult {
  const { quic = [] } = serving;
  const asked = quic.length > 0 ? askedBesideQuic(policy) : [];
  if (asked.length > 0) {
    const hint = 'leave it out of this proxy’s policy, or serve HTTP/3 by a proxy of its own';
    return failed('policy', 'PREFLIGHT_POLICY', `${asked.join(', ')}: ${ownDrain(quic)}`, hint);
  }
  const tells = tellsAnybody(serving.version);
  const marks = serving.wasm && serving.leave === true && canChoose(serving.version, 'mark');
  const why = serving.wasm ? `Envoy ${serving.version} has no call for it` : `Envoy ${serving.version} runs no filter`;
  const alone = policy.rules
    .filter(({ nudge }) => nudge !== undefined && nudge !== policy.http2.goaway)
    .map((rule) => rule.name);
  if (tells && alone.length > 0 && !marks) {
    const wants = policy.http2.goaway ? 'left alone' : 'told';
    const found = `rule ${alone.join(', ')} wants some ${wants}, and connections can not be told one by one: ${why}`;
    return failed('policy', 'PREFLIGHT_POLICY', found);
  }
  const notes: string[] = tells
    ? []
    : [`nobody is told to leave, whatever policy says: ${whyWeakest(serving.version)}`];
  if (quic.length > 0) notes.push(ownDrain(quic));
  if (tells && needsMarks(policy) && !marks)
    notes.push(`${policy.http2.goaway ? 'the oldest leave first, not the idlest' : 'nobody is told to leave'}: ${why}`);
  if (policy.pacing.order === 'idlest' && marks) notes.push(IDLEST);
  const blind = serving.wasm ? [] : policy.rules.filter(matchesNobody).map((rule) => rule.name);
  if (blind.length > 0)
    notes.push(`${blind.join(', ')} match nobody, for only the kernel lists the connections: ${why}`);
  const unseen = policy.rules.filter((rule) => onlyHttp3(rule, quic)).map((rule) => rule.name);
  const other = unseen.filter((name) => !blind.includes(name));
  if (other.length > 0) notes.push(`${other.join(', ')} match nobody, for no filter sees HTTP/3 connections`);
  return passed('policy', notes.length === 0 ? 'can be kept' : notes.join('; '));
}

/** What the word does not say by itself: see docs/policies.md. */
const IDLEST =
  'idlest: can be kept; chosen by silence since the order (who has asked nothing since: by age), heard with the next response, so by silent ones last';

/** The kernel knows peers, and TCP from what is not; no listener's name, no route, no other protocol. */
function matchesNobody({ match }: PolicyRule): boolean {
  const { listeners, protocols, routes } = match;
  return (
    routes !== undefined ||
    (listeners !== undefined && !listeners.some((glob) => globMatches(glob, ''))) ||
    (protocols !== undefined && !protocols.some((one) => one === 'unknown' || one === 'tcp'))
  );
}

/** A QUIC listener gets no filter (contract/presets/listener.ts), so its connections are in no list. */
function onlyHttp3({ match: { listeners, protocols } }: PolicyRule, quic: readonly string[]): boolean {
  return protocols?.every((one) => one === 'http3') === true || listeners?.every((one) => quic.includes(one)) === true;
}

/** What policy asks of the telling beyond the default. A pace that is the default's was not asked for. */
export function pacingAsked({ pacing, rules }: DrainPolicy): string[] {
  const { perSecond, order, scope } = pacing;
  const asked: string[] = [];
  if (perSecond !== DEFAULT_POLICY.pacing.perSecond && perSecond !== 0) asked.push(`pacing.perSecond ${perSecond}`);
  if (order !== DEFAULT_POLICY.pacing.order) asked.push(`pacing.order ${order}`);
  if (scope !== DEFAULT_POLICY.pacing.scope) asked.push(`pacing.scope ${scope}`);
  const alone = rules.filter(({ nudge }) => nudge === false).map(({ name }) => name);
  if (alone.length > 0) asked.push(`nudge: false of rule ${alone.join(', ')}`);
  return asked;
}

/**
 * What Envoy's own drain breaks: it tells each connection with one of its answers, by chance, and so the busy ones within
 * seconds (drain_manager_impl.cc, drainClose). Sessions without answers hear nothing of it, and who is waited for is the
 * verdict's, so `protect` holds.
 */
function askedBesideQuic(policy: DrainPolicy): string[] {
  const answered = ({ match: { protocols } }: PolicyRule) =>
    protocols === undefined || protocols.some((one) => one !== 'tcp' && one !== 'upgrade');
  const asked = pacingAsked({ ...policy, rules: policy.rules.filter(answered) });
  return policy.http2.goaway ? asked : [...asked, 'http2.goaway false'];
}

function ownDrain(quic: readonly string[]): string {
  return `Envoy’s own drain, without which HTTP/3 can not be handed over (${quic.join(', ')}), tells TCP connections too, at its own pace`;
}
