import { type AgentMessage, ENDED_BATCH } from '@sluice/contract';

export const MAX_FACTS = 512;

interface Entry {
  readonly message: AgentMessage;
  /** Set once written to a socket; the other side may not have read it. */
  sentAt?: number;
}

/**
 * What waits to be told to the controller. Bounded, because a controller may stay away for days:
 * - a *state* (`epochs`, `verdict`) replaces the older one of the same subject;
 * - a *fact* (`serving`, `reset`, ...) is kept, in order, and told again after a reconnect if it was written so shortly
 *   before the loss that nobody knows whether it arrived (the link has no acknowledgements; facts are idempotent);
 * - an *answer* (`connections`, `checked`) belongs to the connection that asked, and is dropped with it.
 * No sockets and no clock in here.
 */
export class Outbox {
  #waiting: Entry[] = [];
  #told: Entry[] = [];
  dropped = 0;

  get size(): number {
    return this.#waiting.length;
  }

  push(message: AgentMessage): void {
    if (message.type === 'ended') this.#pushEnded(message);
    else this.#push(message);
    this.#bound();
  }

  /** A drain tells ends one by one for hours; while nobody hears, they gather in few messages, each within its bound. */
  #pushEnded(message: Extract<AgentMessage, { type: 'ended' }>): void {
    const { upgradeId, epoch, dropped } = message;
    const same = ({ message: m, sentAt }: Entry) =>
      m.type === 'ended' && m.upgradeId === upgradeId && m.epoch === epoch && sentAt === undefined;
    const last = this.#waiting.findLastIndex(same);
    const before = this.#waiting[last]?.message;
    let { items } = message;
    if (before?.type === 'ended') {
      const room = Math.max(0, ENDED_BATCH - before.items.length);
      const merged = { ...message, items: [...before.items, ...items.slice(0, room)], dropped };
      this.#waiting[last] = { message: merged };
      items = items.slice(room);
      if (items.length === 0) return;
    }
    for (let from = 0; from === 0 || from < items.length; from += ENDED_BATCH)
      this.#push({ ...message, items: items.slice(from, from + ENDED_BATCH) });
  }

  #push(message: AgentMessage): void {
    const subject = stateSubject(message);
    if (subject !== undefined) this.#waiting = this.#waiting.filter((e) => stateSubject(e.message) !== subject);
    this.#waiting.push({ message });
  }

  /** The next message to write, or undefined. */
  take(now: number): AgentMessage | undefined {
    const entry = this.#waiting.shift();
    if (entry === undefined) return undefined;
    if (isFact(entry.message)) {
      entry.sentAt = now;
      this.#told.push(entry);
      if (this.#told.length > MAX_FACTS) this.#told.shift();
    }
    return entry.message;
  }

  /** The link was lost: facts written after `doubtfulSince` go back to the front, answers go. States are in the hello. */
  disconnected(doubtfulSince: number): void {
    const again = this.#told.filter((e) => (e.sentAt ?? 0) >= doubtfulSince);
    this.#told = [];
    this.#waiting = [...again, ...this.#waiting.filter((e) => !isAnswer(e.message))];
    this.#bound();
  }

  #bound(): void {
    const excess = this.#waiting.length - MAX_FACTS;
    if (excess <= 0) return;
    this.#waiting.splice(0, excess);
    this.dropped += excess;
  }
}

function stateSubject(message: AgentMessage): string | undefined {
  if (message.type === 'epochs') return 'epochs';
  if (message.type === 'verdict') return `verdict ${message.epoch} ${message.upgradeId}`;
  return undefined;
}

function isAnswer(message: AgentMessage): boolean {
  return message.type === 'connections' || message.type === 'checked';
}

function isFact(message: AgentMessage): boolean {
  return stateSubject(message) === undefined && !isAnswer(message);
}
