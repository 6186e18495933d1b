import { isTerminal, type ProxyView, type RecordEntry, type UpgradeView, type WatchItem } from '@sluice/contract';

const MAX_RECENT = 200;

/** What a watch has told so far; pure, so that the tree and the plain lines draw from the same. */
export interface Model {
  readonly proxies: ReadonlyMap<string, ProxyView>;
  readonly upgrades: ReadonlyMap<string, UpgradeView>;
  readonly synced: boolean;
}

export const EMPTY: Model = { proxies: new Map(), upgrades: new Map(), synced: false };

/** The model after an item, and the lines that the item means for a reader without a terminal. */
export function apply(
  model: Model,
  item: WatchItem,
  only?: string,
): { readonly model: Model; readonly records: readonly RecordEntry[] } {
  switch (item.kind) {
    case 'proxy': {
      if (only !== undefined && item.proxy.proxy !== only) return { model, records: [] };
      return { model: { ...model, proxies: new Map(model.proxies).set(item.proxy.proxy, item.proxy) }, records: [] };
    }
    case 'upgrade': {
      if (only !== undefined && item.upgrade.proxy !== only) return { model, records: [] };
      const upgrades = new Map(model.upgrades).set(item.upgrade.id, item.upgrade);
      return { model: { ...model, upgrades: forgetOld(upgrades) }, records: [] };
    }
    case 'record':
      return { model, records: only === undefined || item.record.proxy === only ? [item.record] : [] };
    case 'synced':
      return { model: { ...model, synced: true }, records: [] };
    default:
      return { model, records: [] };
  }
}

/** A watch may run for months: of the ended upgrades only the newest are kept. */
function forgetOld(upgrades: Map<string, UpgradeView>): Map<string, UpgradeView> {
  const ended = [...upgrades.values()].filter((u) => isTerminal(u.phase)).sort((a, b) => a.createdAt - b.createdAt);
  for (const old of ended.slice(0, Math.max(0, ended.length - MAX_RECENT))) upgrades.delete(old.id);
  return upgrades;
}

/** A proxy's upgrades that have not ended, and its newest ended one; newest first. */
export function shownUpgrades(model: Model, proxy: string): UpgradeView[] {
  const own = [...model.upgrades.values()].filter((u) => u.proxy === proxy).sort((a, b) => b.createdAt - a.createdAt);
  const ended = own.find((u) => isTerminal(u.phase));
  return own.filter((u) => !isTerminal(u.phase) || u === ended);
}
