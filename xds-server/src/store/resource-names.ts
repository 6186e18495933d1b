import { createHash } from 'node:crypto';

/** RFC 1123 subdomain: what a custom resource may be called. */
const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const MAX_NAME = 253;
const LABEL = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
const MAX_LABEL = 63;
/** Names that we make; an id that looks like one is not taken as it is. */
const MADE = /^x-.*-x$/s;
const HASH = 'x-sha256-';

/**
 * Name of the object for an id. An id that is a name stays as it is; any other is `x-HEX-x` of its UTF-8; one too long for that
 * `x-sha256-HEX-x`. Different ids have different names; `idOf` goes back, and the object itself tells its id too.
 */
export function objectName(id: string): string {
  if (id.length <= MAX_NAME && NAME.test(id) && !MADE.test(id)) return id;
  // The empty one would have two dashes in a row otherwise, which is a name all the same: `x--x`.
  const name = `x-${Buffer.from(id).toString('hex')}-x`;
  return name.length <= MAX_NAME ? name : `${HASH}${digest(id)}-x`;
}

/** undefined: the name does not tell it. */
export function idOf(name: string): string | undefined {
  if (!MADE.test(name)) return name;
  return name.startsWith(HASH) ? undefined : Buffer.from(name.slice(2, -2), 'hex').toString();
}

/** Value of a label for an id: 63 characters at most, so that more of them are only a hash. */
export function labelValue(id: string): string {
  if (id.length <= MAX_LABEL && LABEL.test(id) && !MADE.test(id)) return id;
  return `x-${digest(id).slice(0, 56)}-x`;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
