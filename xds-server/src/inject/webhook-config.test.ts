import { expect, test } from 'vitest';
import { parseWebhook } from './webhook-config.ts';

const sidecar = { image: 'mesh/proxy:1', emptyImage: 'mesh/empty:1' };

test('names are what a certificate can be for: any other would be looked for in it without end', () => {
  const good = ['webhook', 'webhook.sluice-system.svc', '127.0.0.1', '::1', 'A-1.example'];
  expect(parseWebhook({ sidecar, names: good }, 'inject').names).toEqual(good);
  for (const name of [
    '',
    '*.example',
    'https://webhook',
    'webhook:443',
    'webhook.',
    '.example',
    'fe80::1%eth0',
    'a b',
  ]) {
    expect(() => parseWebhook({ sidecar, names: [name] }, 'inject')).toThrow(/inject\.names\.0: /);
  }
});
