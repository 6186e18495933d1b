import { type ErrorCode, SluiceError } from '@sluice/contract';

/**
 * What two processes say to each other when one takes over the listen sockets of the other: JSON, one object a line, over
 * a Unix stream socket. See docs/listen-fd.md. *Old* = the one that accepts now, *new* = its successor.
 *
 *   new                     old
 *    | hello ------------->  |   version; the kernel says who it is
 *    |  <-------------- offer|   addresses
 *    | take -------------->  |   which of them
 *    |  <---------------- fds|   the descriptors, SCM_RIGHTS; as many messages as needed
 *    | accepting --------->  |   it accepts on them
 *    |  <----------- released|   the old one accepts no more
 *    | done -------------->  |   the transfer is over: the old one drains
 *
 * `refused` may come from either side at any time and ends it. Until `done` the old one accepts, or accepts again.
 */
export const PROTOCOL = 'sluice-fd/1';
export const MAX_MESSAGE_BYTES = 64 * 1024;
/** Listen sockets in one transfer. */
export const MAX_LISTENERS = 256;
const MAX_TEXT = 1_024;

export interface Refused {
  readonly type: 'refused';
  /** Of the error catalogue, without its prefix. */
  readonly code: string;
  readonly message: string;
}

export type NewMessage =
  | { readonly type: 'hello'; readonly protocol: string }
  | { readonly type: 'take'; readonly listeners: readonly number[] }
  | { readonly type: 'accepting' }
  | { readonly type: 'done' }
  | Refused;

export type OldMessage =
  | { readonly type: 'offer'; readonly protocol: string; readonly addresses: readonly string[] }
  /** Descriptor i of this message is listener `listeners[i]` of the offer. */
  | { readonly type: 'fds'; readonly listeners: readonly number[] }
  | { readonly type: 'released' }
  | Refused;

export type Message = NewMessage | OldMessage;

/** A received object as a message. Throws INPUT_INVALID. */
export function readMessage(line: unknown): Message {
  const { type } = (line ?? {}) as { type?: unknown };
  const fields = line as Record<string, unknown>;
  switch (type) {
    case 'hello':
      return { type, protocol: text(type, fields, 'protocol') };
    case 'offer':
      return {
        type,
        protocol: text(type, fields, 'protocol'),
        addresses: list(type, fields, 'addresses', (a): a is string => typeof a === 'string' && a.length <= MAX_TEXT),
      };
    case 'take':
    case 'fds':
      return { type, listeners: list(type, fields, 'listeners', isIndex) };
    case 'accepting':
    case 'released':
    case 'done':
      return { type };
    case 'refused':
      return { type, code: text(type, fields, 'code'), message: text(type, fields, 'message') };
    default:
      throw new SluiceError('INPUT_INVALID', `expected a message of ${PROTOCOL}, found type ${show(type)}`);
  }
}

/** The refusal that says why to the other side. */
export function refusal(code: ErrorCode, message: string): Refused {
  return { type: 'refused', code, message: message.slice(0, MAX_TEXT) };
}

function text(type: string, fields: Record<string, unknown>, name: string): string {
  const value = fields[name];
  if (typeof value === 'string' && value.length <= MAX_TEXT) return value;
  throw new SluiceError('INPUT_INVALID', `message ${type}: expected ${name} to be a text, found ${show(value)}`);
}

function list<T>(type: string, fields: Record<string, unknown>, name: string, is: (value: unknown) => value is T): T[] {
  const value = fields[name];
  if (Array.isArray(value) && value.length <= MAX_LISTENERS && value.every(is)) return value;
  throw new SluiceError(
    'INPUT_INVALID',
    `message ${type}: expected ${name} to be a list of at most ${MAX_LISTENERS}, found ${show(value)}`,
  );
}

function isIndex(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_LISTENERS;
}

function show(value: unknown): string {
  const shown = JSON.stringify(value) ?? 'nothing';
  return shown.length > 60 ? `${shown.slice(0, 60)}...` : shown;
}
