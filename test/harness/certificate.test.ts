import { createPrivateKey, X509Certificate } from 'node:crypto';
import { expect, it } from 'vitest';
import { selfSigned } from './certificate.ts';

it('makes a certificate that OpenSSL reads, verifies and finds fitting its key', () => {
  const { certificate, key } = selfSigned('demo.sluice.test');
  const read = new X509Certificate(certificate);
  expect(read.subject).toBe('CN=demo.sluice.test');
  expect(read.subjectAltName).toBe('DNS:demo.sluice.test');
  expect(read.verify(read.publicKey)).toBe(true);
  expect(read.checkPrivateKey(createPrivateKey(key))).toBe(true);
  expect(Date.parse(read.validTo)).toBeGreaterThan(Date.now());
});
