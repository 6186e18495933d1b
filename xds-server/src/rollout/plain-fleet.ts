import {
  globMatches,
  isTerminal,
  type MemberState,
  type RolloutMember,
  type RolloutSelector,
  type RolloutSpec,
  SluiceError,
} from '@sluice/contract';
import type { Driver } from '../drain/driver.ts';
import type { UpgradeState } from '../drain/state.ts';
import type { Agents } from '../link/agents.ts';
import type { Fleet } from './fleet.ts';
import type { Observed, RolloutAction, RolloutState } from './state.ts';

const UNDER_WAY: ReadonlySet<MemberState> = new Set(['starting', 'draining', 'flipping']);

/** The proxies that belong to other replicas of the controller: their upgrades are run there. */
export interface Others {
  /** An agent of it is linked, here or to another replica. */
  isThere(proxy: string): boolean;
  /** Asks the replica that the proxy belongs to. False: that is this one. */
  ask(proxy: string, path: string, body: object): Promise<boolean>;
}

/** The proxies whose agents are linked to this controller: one upgrade each, by the drain driver. */
export class PlainFleet implements Fleet {
  readonly #driver: Driver;
  readonly #agents: Agents;
  readonly #others: Others;

  constructor(driver: Driver, agents: Agents, others: Others = alone(agents)) {
    this.#driver = driver;
    this.#agents = agents;
    this.#others = others;
  }

  /** Names of the proxies that a selector means now. */
  select({ proxies, labels }: RolloutSelector): string[] {
    return this.#agents.proxies().filter((name) => {
      if (proxies.length > 0 && !proxies.some((glob) => globMatches(glob, name))) return false;
      const own = this.#agents.labels(name);
      return Object.entries(labels).every(([key, value]) => own[key] === value);
    });
  }

  async observe({ spec, members }: RolloutState): Promise<readonly Observed[]> {
    const known = new Map(members.map((one) => [one.name, one]));
    // A member whose labels changed meanwhile stays: it has been begun.
    const begun = members.filter((one) => one.upgradeId !== undefined).map((one) => one.name);
    return Promise.all(
      [...new Set([...this.select(spec.selector), ...begun])].map(async (name): Promise<Observed> => {
        const member = known.get(name);
        // What has ended is read from the store no more: in a large fleet that is nearly everybody.
        const under = member !== undefined && UNDER_WAY.has(member.state);
        const id = under ? orderOf(member) : undefined;
        const upgrade = id === undefined ? undefined : await this.#driver.find(id);
        const there = this.#others.isThere(name);
        return {
          name,
          labels: this.#agents.labels(name),
          reachable: there,
          available: there && this.#agents.serving(name) !== undefined,
          upToDate: this.#isTarget(name, spec),
          ...(upgrade === undefined ? {} : { step: stepOf(upgrade) }),
        };
      }),
    );
  }

  async carryOut(action: RolloutAction, { id: rollout, spec }: RolloutState): Promise<void> {
    switch (action.type) {
      case 'start': {
        if ((await this.#driver.find(action.id)) !== undefined) return;
        const { target, policy } = spec;
        await this.#driver.create({
          id: action.id,
          proxy: action.member,
          target,
          policy,
          reason: `rollout ${rollout}`,
        });
        return;
      }
      case 'abort':
        if ((await this.#driver.find(action.id)) === undefined) return;
        await this.#abort(action.id, action.member, `rollout ${rollout}`).catch((thrown) => {
          // It serves or is over already: the next look at it says so.
          if (!(thrown instanceof SluiceError && thrown.code === 'PHASE_REFUSED')) throw thrown;
        });
        return;
      case 'flip':
        if (
          await this.#others.ask(action.member, `/upgrades/${action.id}/rollback`, {
            by: `rollout ${rollout}`,
            id: action.backId,
          })
        )
          return;
        await this.#driver.verbs.rollback(action.id, `rollout ${rollout}`, action.backId);
        return;
    }
  }

  async #abort(id: string, proxy: string, by: string): Promise<void> {
    if (!(await this.#others.ask(proxy, `/upgrades/${id}/abort`, { by }))) await this.#driver.verbs.abort(id, by);
  }

  #isTarget(name: string, { target }: RolloutSpec): boolean {
    const serving = this.#agents.serving(name);
    if (serving === undefined || this.#driver.active(name).some((one) => one.phase === 'Starting')) return false;
    const same = target.to.includes('/') ? serving.binary === target.to : serving.version === target.to;
    return same && (target.bootstrap === undefined || target.bootstrap === serving.bootstrap);
  }
}

function alone(agents: Agents): Others {
  return { isThere: (proxy) => agents.connectedSlots(proxy).size > 0, ask: async () => false };
}

function orderOf({ state, upgradeId, backId }: RolloutMember): string | undefined {
  return state === 'flipping' ? backId : upgradeId;
}

function stepOf(upgrade: UpgradeState): NonNullable<Observed['step']> {
  const { id, phase, reason, connections, override } = upgrade;
  // What policy gave up, or a person by an override, was theirs to decide.
  const cut = override === undefined ? (connections?.cut ?? []).filter((one) => one.released === undefined) : [];
  return { id, state: stateOf(upgrade), reason: isTerminal(phase) ? reason : phase, cut: cut.length };
}

function stateOf({ phase }: UpgradeState): NonNullable<Observed['step']>['state'] {
  switch (phase) {
    case 'Idle':
    case 'Preflight':
    case 'Starting':
      return 'starting';
    case 'Done':
      return 'done';
    case 'Failed':
      return 'failed';
    case 'RolledBack':
      return 'rolledBack';
    default:
      return 'serving';
  }
}
