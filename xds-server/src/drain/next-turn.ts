import type { Agents } from '../link/agents.ts';
import type { UpgradeEvent, UpgradeState } from './state.ts';

/** The oldest waiting upgrade of a proxy, whose turn it is unless one is on its way to serve. `active`: oldest first. */
export function nextTurn(
  proxy: string,
  active: readonly UpgradeState[],
  agents: Pick<Agents, 'choose' | 'serving'>,
): { readonly id: string; readonly event: UpgradeEvent } | undefined {
  if (active.some((state) => state.phase === 'Preflight' || state.phase === 'Starting')) return undefined;
  const first = active.find((state) => state.phase === 'Idle');
  if (first === undefined) return undefined;
  const slot = agents.choose(proxy, first.target.to, first.slot);
  if (slot === undefined) return undefined;
  const { binary, bootstrap } = agents.serving(proxy) ?? {};
  const fromTarget =
    binary === undefined ? {} : { fromTarget: { to: binary, ...(bootstrap === undefined ? {} : { bootstrap }) } };
  return { id: first.id, event: { type: 'turn', slot, ...fromTarget } };
}
