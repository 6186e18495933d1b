import { type HeldConnection, MAX_HELD, type Verdict } from '@sluice/contract';
import { expect, it } from 'vitest';
import { verdict } from '../testing/fake-agent.ts';
import { fresh, T0 } from '../testing/story.ts';
import { explainItem } from './views.ts';

const [one] = verdict(false).held as [HeldConnection];
const explained = (more: Partial<Verdict>) =>
  explainItem(fresh({ phase: 'Draining', oldEpoch: 0, verdict: verdict(false, more) }), true, T0);

it('what a reset would cut is counted beyond those that are named', () => {
  const held = Array.from({ length: MAX_HELD }, (_, n) => ({ ...one, connection: { ...one.connection, id: `${n}` } }));
  const item = explained({ held, total: 450, protected: 301, holding: 301 });
  expect(item.wouldCut).toHaveLength(MAX_HELD);
  expect(item.wouldCutTotal).toBe(301);
  expect(item.why[0]).toContain(`and at least ${MAX_HELD - 3} more hold`);
  const released = held.map((each) => ({ ...each, protected: false, released: 'deadline' as const }));
  const given = explained({ held: released, total: 450, protected: 0, holding: 450 });
  expect(given.why.join(' ')).toContain(`at least ${MAX_HELD} connections are not waited for`);
});

it('of a whole list every count is exact, and an agent that does not count is taken by its list', () => {
  expect(explained({ held: [one], total: 1, holding: 1 }).wouldCutTotal).toBe(1);
  const { holding: _, ...old } = verdict(false, { held: [one, one], total: 2, protected: 2 });
  const item = explainItem(fresh({ phase: 'Draining', verdict: old as Verdict }), true, T0);
  expect(item.wouldCutTotal).toBe(2);
  expect(item.why.join(' ')).not.toContain('at least');
});
