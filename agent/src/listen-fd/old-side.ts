import { type Message, PROTOCOL, type Refused, refusal } from './messages.ts';
import { type Mishap, type Trouble, troubleOf, troubleOfRefusal } from './trouble.ts';

/**
 * The rules of the side that accepts now. Pure: no sockets, no clock.
 *
 *   hello > take > accepting > stopping > released > done
 *     \______\_______\____________\___________\____> failed: it accepts, or accepts again
 */
export interface OldState {
  readonly phase: 'hello' | 'take' | 'accepting' | 'stopping' | 'released' | 'done' | 'failed';
  readonly addresses: readonly string[];
  /** Listeners that the new side took. */
  readonly taken: readonly number[];
  readonly trouble?: Trouble;
}

export type OldEvent =
  | { readonly type: 'message'; readonly message: Message }
  /** Asked by the effect `stop`: nothing is accepted here any more. */
  | { readonly type: 'stopped' }
  | Mishap;

export type OldEffect =
  | { readonly type: 'send'; readonly message: Message }
  /** Send the descriptors of these listeners, in as many `fds` messages as needed. */
  | { readonly type: 'send-fds'; readonly listeners: readonly number[] }
  /** Stop accepting, without closing what is in the queue; `stopped` is to follow. */
  | { readonly type: 'stop' }
  /** Accept again. */
  | { readonly type: 'resume' }
  /** Close the connection. */
  | { readonly type: 'end' };

export interface OldStep {
  readonly state: OldState;
  readonly effects: readonly OldEffect[];
}

export function oldSide(addresses: readonly string[]): OldState {
  return { phase: 'hello', addresses, taken: [] };
}

export function stepOld(state: OldState, event: OldEvent): OldStep {
  if (state.phase === 'done' || state.phase === 'failed') return { state, effects: [] };
  switch (event.type) {
    case 'message':
      return onMessage(state, event.message);
    case 'stopped':
      if (state.phase !== 'stopping') return { state, effects: [] };
      return { state: { ...state, phase: 'released' }, effects: [{ type: 'send', message: { type: 'released' } }] };
    case 'timeout':
    case 'broken': {
      const trouble = troubleOf(event, state.phase, EXPECTED);
      return fail(state, trouble, refusal(trouble.code, trouble.message));
    }
    case 'gone':
      return fail(state, troubleOf(event, state.phase, EXPECTED));
  }
}

const EXPECTED: Record<Exclude<OldState['phase'], 'done' | 'failed'>, string> = {
  hello: 'hello',
  take: 'take',
  accepting: 'accepting',
  stopping: 'the new one to wait until accepting has stopped here',
  released: 'done',
};

function onMessage(state: OldState, message: Message): OldStep {
  if (message.type === 'refused') return fail(state, troubleOfRefusal(message));
  if (state.phase === 'hello' && message.type === 'hello') {
    if (message.protocol !== PROTOCOL) {
      const found = `expected protocol ${PROTOCOL}, found ${message.protocol}`;
      return refuse(state, { code: 'PROTOCOL_UNSUPPORTED', message: found });
    }
    const { addresses } = state;
    return {
      state: { ...state, phase: 'take' },
      effects: [{ type: 'send', message: { type: 'offer', protocol: PROTOCOL, addresses } }],
    };
  }
  if (state.phase === 'take' && message.type === 'take') {
    const { listeners } = message;
    if (listeners.some((n) => n >= state.addresses.length) || new Set(listeners).size !== listeners.length) {
      const found = `expected listeners of the ${state.addresses.length} offered, each once, found ${listeners}`;
      return refuse(state, { code: 'INPUT_INVALID', message: found });
    }
    return {
      state: { ...state, phase: 'accepting', taken: listeners },
      effects: [{ type: 'send-fds', listeners }],
    };
  }
  if (state.phase === 'accepting' && message.type === 'accepting') {
    return { state: { ...state, phase: 'stopping' }, effects: [{ type: 'stop' }] };
  }
  if (state.phase === 'released' && message.type === 'done') {
    return { state: { ...state, phase: 'done' }, effects: [{ type: 'end' }] };
  }
  const phase = state.phase as keyof typeof EXPECTED;
  return refuse(state, { code: 'INPUT_INVALID', message: `expected ${EXPECTED[phase]}, found ${message.type}` });
}

function refuse(state: OldState, trouble: Trouble): OldStep {
  return fail(state, trouble, refusal(trouble.code, trouble.message));
}

/** Whatever went wrong: from here on this side accepts. */
function fail(state: OldState, trouble: Trouble, say?: Refused): OldStep {
  const stopped = state.phase === 'stopping' || state.phase === 'released';
  return {
    state: { ...state, phase: 'failed', trouble },
    effects: [
      ...(stopped ? [{ type: 'resume' } as const] : []),
      ...(say === undefined ? [] : [{ type: 'send', message: say } as const]),
      { type: 'end' },
    ],
  };
}
