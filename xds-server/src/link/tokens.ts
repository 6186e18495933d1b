import { createHash, timingSafeEqual } from 'node:crypto';

/** Whether a token proves an agent of this proxy. */
export type TokenCheck = (proxy: string, token: string | undefined) => boolean;

/** `*` stands for every proxy without a token of its own. Without any token every agent is let in. */
export function tokenCheck(tokens: Readonly<Record<string, string>> | undefined): TokenCheck {
  if (tokens === undefined || Object.keys(tokens).length === 0) return () => true;
  return (proxy, token) => {
    const expected = Object.hasOwn(tokens, proxy) ? tokens[proxy] : tokens['*'];
    if (expected === undefined || token === undefined) return false;
    // Digests have one length, so that the comparison tells nothing of it.
    return timingSafeEqual(digest(expected), digest(token));
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
