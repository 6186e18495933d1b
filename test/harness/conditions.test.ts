import { expect, it } from 'vitest';
import { Conditions } from './conditions.ts';

it('looks with each change, and each who waits has its own condition', async () => {
  const conditions = new Conditions();
  let count = 0;
  const over: string[] = [];
  const waits = [1, 2].map((n) => conditions.until(`${n}`, () => count >= n).then(() => over.push(`${n}`)));
  for (count = 1; count <= 2; count++) {
    conditions.changed();
    await waits[count - 1];
    expect(over).toEqual(['1', '2'].slice(0, count));
  }
});

it('says what did not come in time, and what a condition threw', async () => {
  const conditions = new Conditions();
  await expect(conditions.until('the moon', () => false, 1)).rejects.toThrow('the moon: not within 1 ms');
  let broken = false;
  const wait = conditions.until('the sun', () => {
    if (broken) throw new Error('it is dark');
    return false;
  });
  broken = true;
  conditions.changed();
  await expect(wait).rejects.toThrow('it is dark');
  await conditions.until('what holds already', () => true);
});
