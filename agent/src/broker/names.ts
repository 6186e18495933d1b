import { SluiceError } from '@sluice/contract';
import type { Party } from './types.ts';

/**
 * The abstract names of the hot restart sockets (hot_restarting_base.cc, createDomainSocketAddress):
 * `<socket path>_<role>_<base id * 10 + epoch % 3>`, each side computing both names from its own path and epoch. A child
 * of epoch E looks for its parent at E-1, a parent of epoch P for its child at P+1.
 */
const LIVE_AT_ONCE = 3;
/** Options multiply --base-id by 10 (options_impl.cc). */
const BASE_ID_FACTOR = 10;

export interface Names {
  /** Where this Envoy listens for its child's requests. */
  readonly parent: string;
  /** Where this Envoy receives its parent's replies. */
  readonly child: string;
  /** Where this Envoy believes its parent to be. */
  readonly itsParent: string;
  /** Where this Envoy believes its child to be. */
  readonly itsChild: string;
}

/** Without the leading `@`. */
export function namesOf(baseId: number, party: Party): Names {
  const { epoch, socketPath } = party;
  if (!socketPath.startsWith('@') || socketPath.length < 2) {
    throw new SluiceError('INPUT_INVALID', `expected an abstract --socket-path such as @name, found "${socketPath}"`);
  }
  if (!Number.isSafeInteger(epoch) || epoch < 0 || !Number.isSafeInteger(baseId) || baseId < 0) {
    throw new SluiceError(
      'INPUT_INVALID',
      `expected a base id and an epoch of 0 or more, found ${baseId} and ${epoch}`,
    );
  }
  const name = (role: string, of: number) => {
    const slot = ((of % LIVE_AT_ONCE) + LIVE_AT_ONCE) % LIVE_AT_ONCE;
    return `${socketPath.slice(1)}_${role}_${baseId * BASE_ID_FACTOR + slot}`;
  };
  return {
    parent: name('parent', epoch),
    child: name('child', epoch),
    itsParent: name('parent', epoch - 1),
    itsChild: name('child', epoch + 1),
  };
}

/** The name of the same role for forwarded UDP datagrams (`<socket path>_udp_<role>_<...>`). */
export function udpName(name: string): string {
  return name.replace(/_(parent|child)_(\d+)$/, '_udp_$1_$2');
}
