import type { EpochStatus, Hello, Verdict } from '@sluice/contract';
import { expect, it } from 'vitest';
import { Agents } from '../link/agents.ts';
import type { AgentLink } from '../link/server.ts';
import { KnownWords, UID_LABEL } from './words.ts';

const epoch = (state: EpochStatus['state'], more: Partial<EpochStatus> = {}): EpochStatus => ({
  ...{ epoch: 1, slot: '1', state, version: '1', pid: 1, startedAt: 0 },
  ...more,
});
const SAFE = { safe: true } as Verdict;

function rig(verdict?: Verdict) {
  const agents = new Agents();
  const link = (slot: string, uid: string | undefined, epochs: EpochStatus[]): AgentLink => {
    const hello = {
      epochs,
      agentVersion: '1',
      versions: [],
      ...(uid && { labels: { [UID_LABEL]: uid } }),
    } as unknown as Hello;
    return { proxy: 'web-0.shop', slot, since: 1, hello } as AgentLink;
  };
  const words = new KnownWords({ agents, verdict: () => verdict, isLive: (id) => id === 'other' });
  return { agents, link, words };
}

it('counts words of this very Pod, from agents that are connected', () => {
  const { agents, link, words } = rig();
  const one = link('1', 'p', [epoch('serving')]);
  agents.connected(one);
  expect(words.of('shop', 'web-0', 'p')).toEqual({ '1': { epochs: [epoch('serving')] } });
  expect(words.of('shop', 'web-0', 'q')).toEqual({});
  expect(words.of('other', 'web-0', 'p')).toEqual({});
  agents.gone(one, 2);
  expect(words.of('shop', 'web-0', 'p')).toEqual({});
  agents.connected(link('1', undefined, [epoch('serving')]));
  expect(words.of('shop', 'web-0', 'p')).toEqual({});
});

it('has the newest verdict of an old epoch', () => {
  const { agents, link, words } = rig(SAFE);
  agents.connected(link('1', 'p', [epoch('draining', { verdict: { safe: false } as Verdict })]));
  expect(words.of('shop', 'web-0', 'p')['1']?.epochs[0]?.verdict).toBe(SAFE);
});

it('counts what another replica wrote, as long as it lives', () => {
  const { agents, words } = rig();
  const row = {
    proxy: 'web-0.shop',
    slot: '2',
    agentVersion: '1',
    versions: [],
    epochs: [epoch('serving')],
    seenAt: 1,
  };
  agents.restore({ ...row, labels: { [UID_LABEL]: 'p' }, replica: 'other' });
  expect(words.of('shop', 'web-0', 'p')['2']).toBeDefined();
  agents.restore({ ...row, labels: { [UID_LABEL]: 'p' }, replica: 'dead' });
  expect(words.of('shop', 'web-0', 'p')).toEqual({});
});

it('tells of changes until it is ended', () => {
  const { words } = rig();
  const told: string[] = [];
  const end = words.onChange((namespace, pod) => told.push(`${namespace}/${pod}`));
  words.changed('web-0.shop');
  words.changed('edge');
  end();
  words.changed('web-0.shop');
  expect(told).toEqual(['shop/web-0']);
});
