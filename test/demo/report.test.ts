import { expect, it } from 'vitest';
import { paint } from './format.ts';
import { report } from './report.ts';

const upgrade = {
  from: '1.38.3',
  to: '1.40.0',
  method: 'hot-restart',
  requests: { total: 12_345, failed: 0, refusedBeforeSent: 3, byProtocol: {} },
  connections: { old: 60, drained: 60, cut: 0 },
  drainStartedAt: 1_000,
  lastOldConnectionEndedAt: 8_000,
  safeToResetAt: 8_120,
  resetAt: 8_200,
  goawayIdleMs: 90,
};
const client = { name: 'http2', total: 20_000, failed: 0, refusedBeforeSent: 3, failures: [] };

it('tells each upgrade on its own time axis, and the sum', () => {
  const text = report({ upgrades: [upgrade], clients: [client], seconds: 30, mismatches: 0 }, paint(false));
  expect(text).toMatchInlineSnapshot(`
    "
    Sluice: what happened

    1. Envoy 1.38.3 → 1.40.0  by hot-restart
       requests meanwhile            12,345  0 failed, 3 not sent by their library after GOAWAY
       old connections                   60  60 drained, 0 cut
       drain ordered                  +0 ms  ························
       idle HTTP/2 got GOAWAY        +90 ms  ························
       last old connection ended     +7.0 s  ███████████████████████·
       safe to reset                 +7.1 s  ████████████████████████  verdict 120 ms later
       old epoch ended               +7.2 s  ████████████████████████

    The whole run, 30.0 s
       client            requests  failed
       http2               20,000       0   ████████████████████████

    Every one of 20,000 requests was answered rightly, exactly once.
    Clients never retry; each request has an id, and the upstream's list of ids was held against theirs.
    "
  `);
});

it('names what failed', () => {
  const failures = [{ id: 'http2/7/1000', what: 'stream reset, code 2', at: 1_500 }];
  const text = report(
    { upgrades: [], clients: [{ ...client, failed: 1, failures }], seconds: 30, mismatches: 0 },
    paint(false),
  );
  expect(text).toContain('http2: stream reset, code 2 (http2/7/1000)');
  expect(text).toContain('1 of 20,000 requests failed.');
});
