import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Belief, reconcile } from './reconcile.ts';

const belief = (parts: Partial<Record<'answered' | 'refused' | 'failedIds', string[]>>, name = 'a'): Belief => ({
  name,
  answered: new Set(parts.answered),
  refused: new Set(parts.refused),
  failedIds: new Set(parts.failedIds),
});
const seen = (ids: Record<string, number>) => new Map(Object.entries(ids));

describe('reconcile', () => {
  it('finds nothing where each answered request was seen once and each refused one never', () => {
    const one = belief({ answered: ['a/0/1', 'a/1/1'], refused: ['a/2/1'], failedIds: ['a/3/1', 'a/4/1'] });
    expect(reconcile([one], seen({ 'a/0/1': 1, 'a/1/1': 1, 'a/3/1': 1 }))).toEqual([]);
  });

  it.each([
    ['answered, but the upstream never saw it', { answered: ['a/0/1'] }, {}],
    ['seen 2 times by the upstream', { answered: ['a/0/1'] }, { 'a/0/1': 2 }],
    ['refused before sent, but the upstream saw it', { refused: ['a/0/1'] }, { 'a/0/1': 1 }],
    ['failed, and seen 2 times', { failedIds: ['a/0/1'] }, { 'a/0/1': 2 }],
    ['seen by the upstream, but never answered', {}, { 'a/0/1': 1 }],
    ['seen, but no client sent it', {}, { 'b/0/1': 1 }],
  ])('names a request that was %s', (what, parts, ids) => {
    expect(reconcile([belief(parts)], seen(ids))).toMatchObject([{ id: expect.any(String), what }]);
  });

  it('finds exactly the requests that a fault touched', () => {
    const fault = fc.constantFrom('none', 'lost', 'twice');
    fc.assert(
      fc.property(fc.array(fault, { maxLength: 60 }), (faults) => {
        const ids = faults.map((_, i) => `a/${i}/1`);
        const counts = new Map<string, number>();
        for (const [i, each] of faults.entries()) {
          if (each !== 'lost') counts.set(ids[i] as string, each === 'twice' ? 2 : 1);
        }
        const wrong = ids.filter((_, i) => faults[i] !== 'none');
        expect(reconcile([belief({ answered: ids })], counts).map(({ id }) => id)).toEqual(wrong);
      }),
    );
  });
});
