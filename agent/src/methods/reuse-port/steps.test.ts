import fc from 'fast-check';
import { expect, it } from 'vitest';
import { removalSteps, toFresh, toOld } from './steps.ts';

/** The kernel's group: an index that is in range is that socket, any other one the choice by hash, which may be any. */
class Group {
  readonly sockets: string[];

  constructor(old: number, fresh: number) {
    this.sockets = [...Array.from({ length: old }, () => 'old'), ...Array.from({ length: fresh }, () => 'fresh')];
  }

  leave(at: number): void {
    const last = this.sockets.pop() as string;
    if (at < this.sockets.length) this.sockets[at] = last;
  }

  /** All sockets that a connection may fall to. */
  hits(program: readonly number[]): Set<string> {
    return new Set(
      program.flatMap((index) => (index < this.sockets.length ? [this.sockets[index] as string] : this.sockets)),
    );
  }
}

const workers = fc.integer({ min: 1, max: 40 });

it('steers to the old sockets only while new ones come and go', () => {
  fc.assert(
    fc.property(workers, workers, (old, fresh) => {
      const group = new Group(old, 0);
      const program = toOld({ old, fresh });
      for (let i = 0; i < fresh; i++) {
        expect(group.hits(program)).toEqual(new Set(['old']));
        group.sockets.push('fresh');
      }
      while (group.sockets.length > old) {
        expect(group.hits(program)).toEqual(new Set(['old']));
        group.leave(old);
      }
    }),
  );
});

it('never lets a connection fall to an old socket while those leave, in whatever order', () => {
  const groups = workers.chain((old) =>
    fc.record({
      old: fc.constant(old),
      fresh: fc.integer({ min: old, max: 60 }),
      order: fc.array(fc.nat(), { minLength: old, maxLength: old }),
    }),
  );
  fc.assert(
    fc.property(groups, ({ old, fresh, order }) => {
      const group = new Group(old, fresh);
      const fell: string[] = [...group.hits(toFresh({ old, fresh }))];
      const steps = removalSteps({ old, fresh });
      expect(steps).toHaveLength(old);
      for (const [i, program] of steps.entries()) {
        // The program is in force before the socket leaves, and after.
        fell.push(...group.hits(program));
        const left = group.sockets.flatMap((socket, at) => (socket === 'old' ? [at] : []));
        group.leave(left[(order[i] as number) % left.length] as number);
        fell.push(...group.hits(program));
      }
      expect(group.sockets).toEqual(Array.from({ length: fresh }, () => 'fresh'));
      expect(new Set(fell)).toEqual(new Set(['fresh']));
    }),
  );
});

it('steers with one worker on each side', () => {
  expect(toOld({ old: 1, fresh: 1 })).toEqual([0]);
  expect(toFresh({ old: 1, fresh: 1 })).toEqual([1]);
  expect(removalSteps({ old: 1, fresh: 1 })).toEqual([[1]]);
});
