import { defineConfig } from 'vitest/config';

// Tests run the TypeScript sources: the condition makes every workspace package resolve to src/ and not to dist/.
const source = { resolve: { conditions: ['sluice-source'] }, ssr: { resolve: { conditions: ['sluice-source'] } } };

const HANDOVER = [
  'test/e2e/{reuse-port,listen-fd,pod,slots,kills,prometheus,pacing-strain,pushes,slow-answer}*.test.ts',
];

export default defineConfig({
  ...source,
  test: {
    projects: [
      {
        ...source,
        test: {
          name: 'unit',
          include: [
            '{contract,wasm-filter,xds-server,agent,cli}/src/**/*.test.ts',
            'test/harness/**/*.test.ts',
            'test/demo/**/*.test.ts',
            'test/bench/**/*.test.ts',
          ],
          testTimeout: 30_000,
        },
      },
      {
        ...source,
        // Whole processes and real Envoys: one file at a time, because two cores are shared by all of them.
        test: {
          name: 'e2e',
          include: ['test/e2e/**/*.test.ts'],
          exclude: HANDOVER,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        ...source,
        // Too long for `npm test`: every other way to hand over, two containers, a kill in each phase, what strains a new epoch.
        test: {
          name: 'handover',
          include: HANDOVER,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        ...source,
        // The levers table held against each Envoy version.
        test: {
          name: 'matrix',
          include: ['test/matrix/**/*.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        ...source,
        // A real API server, OpenKruise and a real node; what they need is built once into the cache by the set-up.
        test: {
          name: 'k8s',
          include: ['test/k8s/**/*.test.ts'],
          globalSetup: ['test/harness/k8s/setup.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          fileParallelism: false,
        },
      },
      {
        ...source,
        // The chart, the bases and the images of deploy/, with the real helm and on the parts of the project k8s.
        test: {
          name: 'deploy',
          include: ['test/deploy/**/*.test.ts'],
          globalSetup: ['test/harness/deploy/setup.ts'],
          testTimeout: 180_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
      {
        ...source,
        test: {
          name: 'pack',
          include: ['test/pack/**/*.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
