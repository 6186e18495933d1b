import { expect, test } from 'vitest';
import { Courtesy } from './courtesy.ts';

function watched() {
  const told: string[] = [];
  let live = 1;
  const courtesy = new Courtesy(() => live, 7, {
    letGoFirst: (pid) => void told.push(`behind ${pid}`),
    asOthers: (pid) => void told.push(`equal ${pid}`),
  });
  return {
    told,
    courtesy,
    setLive(count: number) {
      live = count;
      courtesy.look();
    },
  };
}

test('behind from the check to the end of the drain, told once each way', async () => {
  const { told, courtesy, setLive } = watched();
  courtesy.look();
  await courtesy.during(async () => courtesy.during(async () => setLive(2)));
  courtesy.look();
  expect(told).toEqual(['behind 7']);
  setLive(1);
  expect(told).toEqual(['behind 7', 'equal 7']);
});

test('work that fails is over too', async () => {
  const { told, courtesy } = watched();
  await courtesy
    .during(async () => {
      throw new Error('refused');
    })
    .catch(() => {});
  expect(told).toEqual(['behind 7', 'equal 7']);
});
