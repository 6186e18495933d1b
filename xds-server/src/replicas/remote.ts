import { API_PREFIX, SluiceError } from '@sluice/contract';
import type { Agents } from '../link/agents.ts';
import type { Others } from '../rollout/plain-fleet.ts';
import type { Ownership } from './ownership.ts';

const CALL_MS = 15_000;

/** What a rollout on this replica needs of the proxies that belong to others. */
export function othersOf(ownership: Ownership, agents: Agents): Others {
  return {
    isThere: (proxy) =>
      agents
        .of(proxy)
        .some(({ link, replica }) => link !== undefined || (replica !== undefined && ownership.isLive(replica))),
    ask: async (proxy, path, body) => {
      const owner = ownership.elsewhere(proxy);
      if (owner === undefined) return false;
      let answer: Response;
      try {
        answer = await fetch(`${owner.api}${API_PREFIX}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(body),
          signal: AbortSignal.timeout(CALL_MS),
        });
      } catch (cause) {
        throw new SluiceError('CONTROLLER_AWAY', `replica ${owner.id}: ${(cause as Error).message}`, { cause });
      }
      if (answer.ok) return true;
      const { code, message } = (await answer.json().catch(() => ({}))) as { code?: string; message?: string };
      const refused = code === 'SLUICE_PHASE_REFUSED' ? 'PHASE_REFUSED' : 'CONTROLLER_AWAY';
      throw new SluiceError(refused, `replica ${owner.id}: ${message ?? `HTTP ${answer.status}`}`);
    },
  };
}
