import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Message, PROTOCOL, readMessage } from './messages.ts';
import { type NewEvent, type NewState, newSide, stepNew } from './new-side.ts';
import { type OldEvent, type OldState, oldSide, stepOld } from './old-side.ts';

const ADDRESSES = ['127.0.0.1:80', '[::1]:80', '127.0.0.1:443'];
const HELLO = { type: 'hello', protocol: PROTOCOL } as const;

function old(...events: OldEvent[]): { state: OldState; effects: string[] } {
  let state = oldSide(ADDRESSES);
  const effects: string[] = [];
  for (const event of events) {
    const step = stepOld(state, event);
    state = step.state;
    for (const e of step.effects) effects.push(e.type === 'send' ? e.message.type : e.type);
  }
  return { state, effects };
}

const says = (message: Message) => ({ type: 'message', message }) as const;

describe('the side that accepts now', () => {
  it('stops only once the successor accepts, and is done only when it says so', () => {
    const all = [says(HELLO), says({ type: 'take', listeners: [0, 2] }), says({ type: 'accepting' })];
    expect(old(...all).effects).toEqual(['offer', 'send-fds', 'stop']);
    const rest = old(...all, { type: 'stopped' }, says({ type: 'done' }));
    expect(rest.effects).toEqual(['offer', 'send-fds', 'stop', 'released', 'end']);
    expect(rest.state).toMatchObject({ phase: 'done', taken: [0, 2] });
  });

  it.each([
    ['another version', [says({ type: 'hello', protocol: 'sluice-fd/2' })], 'PROTOCOL_UNSUPPORTED'],
    ['a message before hello', [says({ type: 'take', listeners: [0] })], 'INPUT_INVALID'],
    ['a listener that was not offered', [says(HELLO), says({ type: 'take', listeners: [3] })], 'INPUT_INVALID'],
    ['a listener twice', [says(HELLO), says({ type: 'take', listeners: [1, 1] })], 'INPUT_INVALID'],
    ['accepting before the descriptors', [says(HELLO), says({ type: 'accepting' })], 'INPUT_INVALID'],
    ['a refusal', [says(HELLO), says({ type: 'refused', code: 'EPOCH_DIED', message: 'x' })], 'EPOCH_DIED'],
    ['a code that it does not know', [says({ type: 'refused', code: 'toString', message: 'x' })], 'LISTEN_FD_BROKEN'],
    ['silence', [says(HELLO), { type: 'timeout' } as const], 'LISTEN_FD_BROKEN'],
    ['the end of the other side', [says(HELLO), { type: 'gone' } as const], 'LISTEN_FD_BROKEN'],
  ])('%s: never stopped accepting', (_, events, code) => {
    const { state, effects } = old(...(events as OldEvent[]));
    expect(state).toMatchObject({ phase: 'failed', trouble: { code } });
    expect(effects).not.toContain('stop');
    expect(effects.at(-1)).toBe('end');
  });

  it.each([
    ['while it stops', []],
    ['after it said released', [{ type: 'stopped' } as const]],
  ])('accepts again when the successor dies %s', (_, more) => {
    const taken = [says(HELLO), says({ type: 'take', listeners: [0] }), says({ type: 'accepting' })];
    const { state, effects } = old(...taken, ...more, { type: 'gone' });
    expect(effects).toContain('resume');
    expect(state.phase).toBe('failed');
  });
});

describe('the side that takes over', () => {
  const run = (...events: NewEvent[]) => {
    let state: NewState = newSide((address) => address.endsWith(':80')).state;
    const effects: string[] = [];
    for (const event of events) {
      const step = stepNew(state, event);
      state = step.state;
      for (const e of step.effects) effects.push(e.type === 'send' ? e.message.type : e.type);
    }
    return { state, effects };
  };
  const offer = {
    type: 'message',
    message: { type: 'offer', protocol: PROTOCOL, addresses: ADDRESSES },
    fds: 0,
  } as const;
  const fds = (listeners: number[], count = listeners.length): NewEvent => ({
    type: 'message',
    message: { type: 'fds', listeners },
    fds: count,
  });
  const released = { type: 'message', message: { type: 'released' }, fds: 0 } as const;

  it('takes what it wants, serves when all have come, says so once it accepts', () => {
    expect(run(offer, fds([0])).effects).toEqual(['take']);
    expect(run(offer, fds([0]), fds([1])).effects).toEqual(['take', 'serve']);
    const whole = run(offer, fds([0, 1]), { type: 'accepting' }, released, { type: 'owned' });
    expect(whole.effects).toEqual(['take', 'serve', 'accepting', 'own', 'done', 'end']);
    expect(whole.state).toMatchObject({ phase: 'done', released: true });
  });

  it.each([
    ['fewer descriptors than said', [offer, fds([0, 1], 1)]],
    ['more than said', [offer, fds([0], 2)]],
    ['those of other listeners', [offer, fds([0, 2])]],
    ['too many', [offer, fds([0, 1, 2])]],
    ['none', [offer, fds([])]],
    ['some with another message', [{ ...offer, fds: 1 } as NewEvent]],
    ['released before it accepts', [offer, fds([0, 1]), released]],
    ['the old one dies before it accepts', [offer, fds([0]), { type: 'gone' } as const]],
    [
      'it can not serve',
      [offer, fds([0, 1]), { type: 'unable', trouble: { code: 'EPOCH_DIED', message: '' } } as const],
    ],
  ])('%s: dropped, nothing is accepted here', (_, events) => {
    const { state, effects } = run(...(events as NewEvent[]));
    expect(state.phase).toBe('failed');
    expect(effects).toContain('drop');
    expect(effects).not.toContain('accepting');
  });

  it('gives up when it can not be found by a successor: the old one hears it and accepts again', () => {
    const trouble = { code: 'CONFIG_INVALID', message: 'no such folder' } as const;
    const { state, effects } = run(offer, fds([0, 1]), { type: 'accepting' }, released, { type: 'unable', trouble });
    expect(state.phase).toBe('failed');
    expect(effects.slice(-4)).toEqual(['own', 'drop', 'refused', 'end']);
  });

  it('goes on alone when the old one dies after it was told', () => {
    const { state, effects } = run(offer, fds([0, 1]), { type: 'accepting' }, { type: 'gone' }, { type: 'owned' });
    expect(state).toMatchObject({ phase: 'done', released: false });
    expect(effects.slice(-2)).toEqual(['own', 'end']);
  });
});

it.each([
  [{ type: 'hello' }],
  [{ type: 'take', listeners: ['0'] }],
  [{ type: 'take', listeners: [-1] }],
  [{ type: 'take', listeners: new Array(257).fill(0) }],
  [{ type: 'offer', protocol: 'x', addresses: ['a'.repeat(2_000)] }],
  [{ type: 'sing' }],
  [[]],
  [null],
])('%j is no message', (line) => {
  expect(() => readMessage(line)).toThrow(/expected/);
});

/**
 * Both sides, joined by two ordered queues, under any history of deliveries, deaths, silences and garbage. Whatever happens,
 * somebody accepts as long as one of them lives and has noticed what it can notice.
 */
describe('any history of a transfer', () => {
  const happening = fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom('to-old', 'to-new', 'new-accepts', 'old-stopped', 'new-owns') },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        'old-dies',
        'new-dies',
        'old-timeout',
        'new-timeout',
        'garbage-old',
        'garbage-new',
        'new-unable',
      ),
    },
  );

  it('leaves somebody accepting', () => {
    fc.assert(
      fc.property(fc.array(happening, { maxLength: 60 }), (history) => {
        const world = new World();
        for (const each of history) {
          world.happen(each);
          world.check();
        }
        // Then all that is under way arrives, and every death is noticed.
        for (let i = 0; i < 40; i++)
          for (const each of ['to-old', 'to-new', 'old-stopped', 'new-owns'] as const) world.happen(each);
        world.check(true);
      }),
      { numRuns: 3_000 },
    );
  });

  it('ends well when nothing goes wrong', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('to-old', 'to-new', 'new-accepts', 'old-stopped', 'new-owns')),
        (history) => {
          const world = new World();
          for (const each of history) world.happen(each);
          for (let i = 0; i < 20; i++)
            for (const each of ['to-old', 'to-new', 'new-accepts', 'old-stopped', 'new-owns'] as const)
              world.happen(each);
          expect([world.oldState.phase, world.newState.phase]).toEqual(['done', 'done']);
          expect([world.oldAccepts, world.newAccepts]).toEqual([false, true]);
        },
      ),
    );
  });
});

type Happening =
  | 'to-old'
  | 'to-new'
  | 'new-accepts'
  | 'old-stopped'
  | 'new-owns'
  | 'old-dies'
  | 'new-dies'
  | 'old-timeout'
  | 'new-timeout'
  | 'garbage-old'
  | 'garbage-new'
  | 'new-unable';

const GARBAGE = { type: 'broken', trouble: { code: 'INPUT_INVALID', message: 'garbage' } } as const;

class World {
  oldState = oldSide(ADDRESSES);
  newState: NewState;
  oldAccepts = true;
  newAccepts = false;
  oldLives = true;
  newLives = true;
  /** The new side accepted at the moment when the old one stopped. */
  stoppedRightly = true;
  #toOld: (Message | 'end')[] = [];
  #toNew: (Message | 'end')[] = [];
  #stopping = false;
  #serving = false;
  #owning = false;

  constructor() {
    const { state, effects } = newSide(() => true);
    this.newState = state;
    for (const e of effects) if (e.type === 'send') this.#toOld.push(e.message);
  }

  happen(what: Happening): void {
    if (what === 'to-old')
      this.#arrive(this.#toOld.shift(), (m) => this.#old(m === 'end' ? { type: 'gone' } : says(m)));
    else if (what === 'to-new') {
      this.#arrive(this.#toNew.shift(), (m) =>
        this.#new(
          m === 'end'
            ? { type: 'gone' }
            : { type: 'message', message: m, fds: m.type === 'fds' ? m.listeners.length : 0 },
        ),
      );
    } else if (what === 'new-accepts' && this.#serving && this.newLives) {
      this.newAccepts = this.newState.phase === 'serving' || this.newAccepts;
      this.#new({ type: 'accepting' });
    } else if (what === 'old-stopped' && this.#stopping && this.oldLives) {
      this.#stopping = false;
      this.oldAccepts = false;
      this.#old({ type: 'stopped' });
    } else if (what === 'old-dies' && this.oldLives) {
      this.oldLives = this.oldAccepts = false;
      this.#toNew.push('end');
    } else if (what === 'new-dies' && this.newLives) {
      this.newLives = this.newAccepts = false;
      this.#toOld.push('end');
    } else if (what === 'old-timeout') this.#old({ type: 'timeout' });
    else if (what === 'new-timeout') this.#new({ type: 'timeout' });
    else if (what === 'garbage-old') this.#old(GARBAGE);
    else if (what === 'garbage-new') this.#new(GARBAGE);
    else if (what === 'new-owns' && this.#owning && this.newLives) {
      this.#owning = false;
      this.#new({ type: 'owned' });
    } else if (what === 'new-unable' && (this.newState.phase === 'serving' || this.#owning))
      this.#new({ type: 'unable', trouble: GARBAGE.trouble });
  }

  #arrive(message: Message | 'end' | undefined, then: (message: Message | 'end') => void): void {
    if (message !== undefined) then(message);
  }

  #old(event: OldEvent): void {
    if (!this.oldLives) return;
    const { state, effects } = stepOld(this.oldState, event);
    this.oldState = state;
    for (const effect of effects) {
      if (effect.type === 'send') this.#toNew.push(effect.message);
      else if (effect.type === 'send-fds') this.#toNew.push({ type: 'fds', listeners: effect.listeners });
      else if (effect.type === 'end') this.#toNew.push('end');
      else if (effect.type === 'stop') this.#stopping = true;
      else {
        this.#stopping = false;
        this.oldAccepts = true;
      }
    }
  }

  #new(event: NewEvent): void {
    if (!this.newLives) return;
    const { state, effects } = stepNew(this.newState, event);
    this.newState = state;
    for (const effect of effects) {
      if (effect.type === 'send') this.#toOld.push(effect.message);
      else if (effect.type === 'end') this.#toOld.push('end');
      else if (effect.type === 'serve') this.#serving = true;
      else if (effect.type === 'own') this.#owning = true;
      else if (effect.type === 'drop') {
        this.newAccepts = false;
        this.#serving = this.#owning = false;
      }
    }
  }

  check(settled = false): void {
    // Before the successor said that it accepts, the old one has not stopped.
    if (this.oldLives && !this.oldAccepts) {
      expect(['released', 'done', 'failed']).toContain(this.oldState.phase);
      if (this.newLives) expect(this.newAccepts).toBe(true);
    }
    if (!settled) return;
    if (this.oldLives && !this.newLives && this.oldState.phase !== 'done') expect(this.oldAccepts).toBe(true);
    if (this.oldLives && this.newLives) expect(this.oldAccepts || this.newAccepts).toBe(true);
    if (!this.oldLives && this.newLives && this.newState.phase === 'done') expect(this.newAccepts).toBe(true);
  }
}
