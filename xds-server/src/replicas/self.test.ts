import { expect, it } from 'vitest';
import { replicaAddresses, replicaId } from './self.ts';

it('is the Pod by the downward API, unless the configuration says otherwise', () => {
  const env = { POD_NAME: 'sluice-7d9c-x2x', POD_IP: '10.1.2.3' };
  expect(replicaId({ config: {}, env })).toBe('sluice-7d9c-x2x');
  expect(replicaId({ config: { id: 'a' }, env })).toBe('a');
  expect(replicaAddresses({ config: {}, apiHost: '0.0.0.0', env })(1, 2)).toEqual({
    api: 'http://10.1.2.3:1',
    xds: '10.1.2.3:2',
  });
  expect(replicaAddresses({ config: { host: 'fd00::1' }, apiHost: '::', env })(1, 2).api).toBe('http://[fd00::1]:1');
  expect(replicaAddresses({ config: {}, apiHost: '127.0.0.1', env: {} })(1, 2).xds).toBe('127.0.0.1:2');
  expect(replicaAddresses({ config: {}, apiHost: '0.0.0.0', env: {} })(1, 2).xds).not.toContain('0.0.0.0');
});

it('refuses a name that no Lease can have', () => {
  expect(() => replicaId({ config: { id: 'Not A Name' }, env: {} })).toThrow(/kubernetes.replica.id/);
});
