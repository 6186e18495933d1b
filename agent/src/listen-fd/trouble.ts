import { CATALOGUE, type ErrorCode, SluiceError } from '@sluice/contract';
import type { Refused } from './messages.ts';

/** Why a transfer failed: plain data, so that the rules stay pure. */
export interface Trouble {
  readonly code: ErrorCode;
  readonly message: string;
  /** What happened, and in which phase of this side; absent where a message was wrong. */
  readonly mishap?: { readonly type: Mishap['type']; readonly phase: string };
}

/** What can happen to either side besides a message. */
export type Mishap =
  /** The other side has closed, or died. */
  | { readonly type: 'gone' }
  /** The bound of this phase is over. */
  | { readonly type: 'timeout' }
  /** It sent what no message is, too much, or does not read. */
  | { readonly type: 'broken'; readonly trouble: Trouble };

/** `expected`: what each phase waits for, in words. */
export function troubleOf<P extends string>(event: Mishap, phase: P, expected: Readonly<Record<P, string>>): Trouble {
  const mishap = { type: event.type, phase };
  if (event.type === 'broken') return { ...event.trouble, mishap };
  const found = event.type === 'gone' ? 'that the other side has gone' : 'nothing within the bound';
  return { code: 'LISTEN_FD_BROKEN', message: `expected ${expected[phase]}, found ${found}`, mishap };
}

export function troubleOfRefusal({ code, message }: Refused): Trouble {
  const known = Object.hasOwn(CATALOGUE, code) ? (code as ErrorCode) : 'LISTEN_FD_BROKEN';
  return { code: known, message: `the other side refused: ${message}` };
}

/** A transfer that failed, with what happened to it. */
export class TransferError extends SluiceError {
  readonly mishap: Trouble['mishap'];

  constructor({ code, message, mishap }: Trouble) {
    super(code, message);
    this.mishap = mishap;
  }
}
