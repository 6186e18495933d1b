import { type Message, PROTOCOL, type Refused, refusal } from './messages.ts';
import { type Mishap, type Trouble, troubleOf, troubleOfRefusal } from './trouble.ts';

/**
 * The rules of the side that takes over. Pure: no sockets, no clock.
 *
 *   offer > fds > serving > released > owning > done
 *      \_____\_______\____________\_______\____> failed: what was received is closed, nothing is accepted here
 *                                 \____________> owning, not released: the old one went after it was told that this one accepts
 */
export interface NewState {
  readonly phase: 'offer' | 'fds' | 'serving' | 'released' | 'owning' | 'done' | 'failed';
  readonly wanted: (address: string) => boolean;
  readonly addresses: readonly string[];
  readonly taken: readonly number[];
  /** How many of the taken have come. */
  readonly received: number;
  /** The old side said that it accepts no more. */
  readonly released: boolean;
  readonly trouble?: Trouble;
}

export type NewEvent =
  /** `fds`: how many descriptors came with it. */
  | { readonly type: 'message'; readonly message: Message; readonly fds: number }
  /** Asked by the effect `serve`: this side accepts on all of them. */
  | { readonly type: 'accepting' }
  /** Asked by the effect `own`: whoever connects next finds this side. */
  | { readonly type: 'owned' }
  /** What was asked can not be done. */
  | { readonly type: 'unable'; readonly trouble: Trouble }
  | Mishap;

export type NewEffect =
  | { readonly type: 'send'; readonly message: Message }
  /** All descriptors are there: accept on them; `accepting` or `unable` is to follow. */
  | { readonly type: 'serve' }
  /** Accept no more (if it did) and close what was received. */
  | { readonly type: 'drop' }
  /** The sockets are ours: be the old side of the next transfer; `owned` or `unable` is to follow. */
  | { readonly type: 'own' }
  | { readonly type: 'end' };

export interface NewStep {
  readonly state: NewState;
  readonly effects: readonly NewEffect[];
}

/** `wanted`: which of the offered addresses this side will accept on. The first effect of all: `hello` is sent. */
export function newSide(wanted: (address: string) => boolean): NewStep {
  return {
    state: { phase: 'offer', wanted, addresses: [], taken: [], received: 0, released: false },
    effects: [{ type: 'send', message: { type: 'hello', protocol: PROTOCOL } }],
  };
}

export function stepNew(state: NewState, event: NewEvent): NewStep {
  if (state.phase === 'done' || state.phase === 'failed') return { state, effects: [] };
  switch (event.type) {
    case 'message':
      return onMessage(state, event.message, event.fds);
    case 'accepting':
      if (state.phase !== 'serving') return { state, effects: [] };
      return { state: { ...state, phase: 'released' }, effects: [{ type: 'send', message: { type: 'accepting' } }] };
    case 'owned':
      return state.phase === 'owning' ? finish(state) : { state, effects: [] };
    case 'unable':
      return refuse(state, event.trouble);
    default: {
      const trouble = troubleOf(event, state.phase, EXPECTED);
      // It was told that this side accepts, and may have stopped by now: to stop here too could leave nobody.
      if (state.phase === 'released') return own({ ...state, trouble });
      // It said that it accepts no more, and waits for nothing but our word.
      if (state.phase === 'owning') return { state, effects: [] };
      return event.type === 'gone' ? fail(state, trouble) : refuse(state, trouble);
    }
  }
}

const EXPECTED: Record<Exclude<NewState['phase'], 'done' | 'failed'>, string> = {
  offer: 'an offer',
  fds: 'the descriptors',
  serving: 'the old one to wait until this one accepts',
  released: 'released',
  owning: 'nothing more',
};

function onMessage(state: NewState, message: Message, fds: number): NewStep {
  if (message.type === 'refused') return fail(state, troubleOfRefusal(message));
  if (fds > 0 && !(state.phase === 'fds' && message.type === 'fds')) {
    return refuse(state, {
      code: 'INPUT_INVALID',
      message: `expected no descriptor with ${message.type}, found ${fds}`,
    });
  }
  if (state.phase === 'offer' && message.type === 'offer') {
    if (message.protocol !== PROTOCOL) {
      const found = `expected protocol ${PROTOCOL}, found ${message.protocol}`;
      return refuse(state, { code: 'PROTOCOL_UNSUPPORTED', message: found });
    }
    const { addresses } = message;
    const taken = addresses.flatMap((address, n) => (state.wanted(address) ? [n] : []));
    const next: NewState = { ...state, phase: taken.length === 0 ? 'serving' : 'fds', addresses, taken };
    const take = { type: 'send', message: { type: 'take', listeners: taken } } as const;
    return { state: next, effects: taken.length === 0 ? [take, { type: 'serve' }] : [take] };
  }
  if (state.phase === 'fds' && message.type === 'fds') {
    const expected = state.taken.slice(state.received, state.received + message.listeners.length);
    if (fds !== message.listeners.length || `${expected}` !== `${message.listeners}` || fds === 0) {
      const found = `expected a descriptor for each of ${expected}, found ${fds} for ${message.listeners}`;
      return refuse(state, { code: 'INPUT_INVALID', message: found });
    }
    const received = state.received + fds;
    if (received < state.taken.length) return { state: { ...state, received }, effects: [] };
    return { state: { ...state, received, phase: 'serving' }, effects: [{ type: 'serve' }] };
  }
  if (state.phase === 'released' && message.type === 'released') return own({ ...state, released: true });
  const phase = state.phase as keyof typeof EXPECTED;
  const trouble: Trouble = { code: 'INPUT_INVALID', message: `expected ${EXPECTED[phase]}, found ${message.type}` };
  return state.phase === 'released' ? own({ ...state, trouble }) : refuse(state, trouble);
}

/** Before `done`: when the old side drains, a successor finds this one. */
function own(state: NewState): NewStep {
  return { state: { ...state, phase: 'owning' }, effects: [{ type: 'own' }] };
}

function finish(state: NewState): NewStep {
  const done = state.released ? [{ type: 'send', message: { type: 'done' } } as const] : [];
  return { state: { ...state, phase: 'done' }, effects: [...done, { type: 'end' }] };
}

function refuse(state: NewState, trouble: Trouble): NewStep {
  return fail(state, trouble, refusal(trouble.code, trouble.message));
}

/** Dropped before it is said: when the old side hears it, this one accepts nothing any more. */
function fail(state: NewState, trouble: Trouble, say?: Refused): NewStep {
  return {
    state: { ...state, phase: 'failed', trouble },
    effects: [
      { type: 'drop' },
      ...(say === undefined ? [] : [{ type: 'send', message: say } as const]),
      { type: 'end' },
    ],
  };
}
