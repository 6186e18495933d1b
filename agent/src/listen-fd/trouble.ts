import { CATALOGUE, type ErrorCode, SluiceError } from '@sluice/contract';
import type { Refused } from './messages.ts';

/** Why a transfer failed: plain data, so that the rules stay pure. */
export interface Trouble {
  readonly code: ErrorCode;
  readonly message: string;
}

/** What can happen to either side besides a message. */
export type Mishap =
  /** The other side has closed, or died. */
  | { readonly type: 'gone' }
  /** The bound of this phase is over. */
  | { readonly type: 'timeout' }
  /** It sent what no message is, too much, or does not read. */
  | { readonly type: 'broken'; readonly trouble: Trouble };

export function troubleOf(event: Mishap, during: string): Trouble {
  if (event.type === 'broken') return event.trouble;
  if (event.type === 'gone') {
    return { code: 'LISTEN_FD_BROKEN', message: `expected ${during}, found that the other side has gone` };
  }
  return { code: 'LISTEN_FD_BROKEN', message: `expected ${during}, found nothing within the bound` };
}

export function troubleOfRefusal({ code, message }: Refused): Trouble {
  const known = Object.hasOwn(CATALOGUE, code) ? (code as ErrorCode) : 'LISTEN_FD_BROKEN';
  return { code: known, message: `the other side refused: ${message}` };
}

export function errorOf({ code, message }: Trouble): SluiceError {
  return new SluiceError(code, message);
}
