// Decorators of the ASN.1 library register themselves by it.
import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
/** Clocks of API servers differ from ours. */
const EARLIER_MS = 5 * 60_000;

/** PEM both. */
export interface Identity {
  readonly certificate: string;
  readonly key: string;
}

export interface Validity {
  readonly now: number;
  readonly days: number;
}

const DAY_MS = 86_400_000;
const span = ({ now, days }: Validity) => ({
  notBefore: new Date(now - Math.min(EARLIER_MS, (days * DAY_MS) / 10)),
  notAfter: new Date(now + days * DAY_MS),
});

export async function makeAuthority(name: string, validity: Validity): Promise<Identity> {
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    // Two authorities of one name are told apart by their keys' identifiers; by name too it is plain in a bundle.
    name: [{ CN: [`${name} ${new Date(validity.now).toISOString()}`] }],
    ...span(validity),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pem(certificate), key: await exported(keys.privateKey) };
}

/** A serving certificate. @param names DNS names and IP addresses, at least one */
export async function issue(authority: Identity, names: readonly string[], validity: Validity): Promise<Identity> {
  const issuer = new x509.X509Certificate(authority.certificate);
  const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
  const { notBefore, notAfter } = span(validity);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [names[0] ?? ''] }],
    issuer: issuer.subject,
    notBefore,
    // One that outlives its authority would be refused all the same.
    notAfter: notAfter < issuer.notAfter ? notAfter : issuer.notAfter,
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: await imported(authority.key),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value })),
      ),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pem(certificate), key: await exported(keys.privateKey) };
}

const pem = (certificate: x509.X509Certificate): string => `${certificate.toString('pem')}\n`;

async function exported(key: webcrypto.CryptoKey): Promise<string> {
  return `${x509.PemConverter.encode(await crypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

async function imported(text: string): Promise<webcrypto.CryptoKey> {
  const [der = new ArrayBuffer()] = x509.PemConverter.decode(text);
  return crypto.subtle.importKey('pkcs8', der, ALGORITHM, false, ['sign']);
}
