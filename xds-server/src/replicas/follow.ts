import { isTerminal, toSluiceError } from '@sluice/contract';
import type { Hub } from '../api/hub.ts';
import { upgradeView } from '../api/views.ts';
import type { Driver } from '../drain/driver.ts';
import type { Agents } from '../link/agents.ts';
import type { Log } from '../log.ts';
import { rolloutView } from '../rollout/index.ts';
import type { Store, StoreChange, Stored } from '../store/store.ts';
import type { Ownership } from './ownership.ts';

export interface FollowParts {
  readonly store: Store;
  readonly ownership: Ownership;
  readonly agents: Agents;
  readonly driver: Driver;
  readonly hub: Hub;
  readonly showProxy: (proxy: string) => void;
  /** Something that a rollout may wait for. */
  readonly changed: () => void;
  readonly log: Log;
}

/**
 * What the other replicas write comes here by the store: lists and watches show all of it on any replica, and an upgrade that was
 * made elsewhere for a proxy of this one is taken up. Until the signal is aborted.
 */
export function followStore(parts: FollowParts, signal: AbortSignal): void {
  const { store, ownership, agents, driver, hub, showProxy, changed, log } = parts;
  /** Entries of the records of others' upgrades that were shown already. */
  const shown = new Map<string, number>();

  const upgrade = async (stored: Stored): Promise<void> => {
    const { state } = stored;
    await driver.noticed(stored);
    if (ownership.owns(state.proxy)) return;
    changed();
    hub.publish({ kind: 'upgrade', upgrade: upgradeView(state) });
    if (hub.size === 0) return;
    const entries = await store.record(state.id);
    const from = shown.get(state.id) ?? entries.length - 1;
    if (isTerminal(state.phase)) shown.delete(state.id);
    else shown.set(state.id, entries.length);
    for (const record of entries.slice(from)) hub.publish({ kind: 'record', record });
  };
  const onChange = (change: StoreChange): void => {
    switch (change.kind) {
      case 'agent': {
        const { row } = change;
        if (agents.entry(row.proxy, row.slot)?.link !== undefined) return;
        agents.restore(row);
        if (ownership.owns(row.proxy)) return;
        showProxy(row.proxy);
        changed();
        return;
      }
      case 'upgrade':
        upgrade(change.upgrade).catch((thrown) =>
          log.warn({ upgrade: change.upgrade.state.id, err: toSluiceError(thrown) }, 'what another replica wrote'),
        );
        return;
      case 'gone':
        // One that is linked here is there, whoever took its object away.
        if (agents.connectedSlots(change.proxy).size > 0) return;
        agents.forget(change.proxy);
        driver.forget(change.proxy);
        return;
      case 'rollout':
        hub.publish({ kind: 'rollout', rollout: rolloutView(change.rollout.state) });
        return;
    }
  };
  store.watch?.(onChange, signal);
}
