import type { Observed, RolloutAction } from './state.ts';

interface Upgrade {
  readonly id: string;
  readonly back: boolean;
  state: NonNullable<Observed['step']>['state'];
  cut: number;
}

/** A fleet for tests: carries out what it is asked for, and lives on by `advance`. */
export class SimulatedFleet {
  readonly members = new Map<
    string,
    { zone: string; reachable: boolean; available: boolean; upgrades: Upgrade[]; target: boolean }
  >();
  /** Orders in the order in which they were first taken. */
  readonly taken: RolloutAction[] = [];

  add(name: string, zone = ''): void {
    this.members.set(name, { zone, reachable: true, available: true, upgrades: [], target: false });
  }

  observe(): Observed[] {
    return [...this.members].map(([name, one]) => {
      const last = one.upgrades.at(-1);
      return {
        name,
        labels: { zone: one.zone },
        reachable: one.reachable,
        available: one.reachable && one.available,
        upToDate: one.target,
        ...(last === undefined ? {} : { step: { id: last.id, state: last.state, reason: last.state, cut: last.cut } }),
      };
    });
  }

  /** As a fleet does: an order that came before means nothing new. */
  carryOut(action: RolloutAction): void {
    const member = this.members.get(action.member);
    if (member === undefined) return;
    const id = action.type === 'flip' ? action.backId : action.id;
    const known = member.upgrades.find((one) => one.id === id);
    if (action.type === 'abort') {
      if (known?.state === 'starting') known.state = 'failed';
    } else if (known === undefined) {
      this.taken.push(action);
      member.upgrades.push({ id, back: action.type === 'flip', state: 'starting', cut: 0 });
    }
  }

  /** The newest upgrade of a member makes its next step, or fails. */
  advance(name: string, fails = false, cut = 0): void {
    const member = this.members.get(name);
    const last = member?.upgrades.at(-1);
    if (member === undefined || last === undefined || !member.reachable) return;
    if (last.state === 'starting') {
      last.state = fails ? 'failed' : 'serving';
      if (!fails) member.target = !last.back;
    } else if (last.state === 'serving') {
      last.state = 'done';
      last.cut = cut;
    }
  }

  /** In an upgrade that does not serve yet, or not there. */
  unavailable(): string[] {
    return [...this.members]
      .filter(([, one]) => !one.reachable || !one.available || one.upgrades.at(-1)?.state === 'starting')
      .map(([name]) => name);
  }
}
