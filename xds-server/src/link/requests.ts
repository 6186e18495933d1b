import { randomUUID } from 'node:crypto';
import { type AgentMessage, SluiceError } from '@sluice/contract';

type Answer = Extract<AgentMessage, { requestId: string }>;

/** Questions to agents that wait for their answer, each with a bound. */
export class Requests {
  readonly #waiting = new Map<
    string,
    { owner: object; resolve: (answer: Answer) => void; reject: (e: Error) => void }
  >();

  /** `send` gets the id and says whether the question went out; `owner`: whose loss ends the wait (its link). */
  ask(owner: object, timeoutMs: number, what: string, send: (requestId: string) => boolean): Promise<Answer> {
    const requestId = randomUUID();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(requestId);
        reject(new SluiceError('TIMEOUT', `the agent did not answer ${what} within ${timeoutMs} ms`));
      }, timeoutMs);
      const settle = <T>(after: (value: T) => void) => {
        return (value: T) => {
          clearTimeout(timer);
          this.#waiting.delete(requestId);
          after(value);
        };
      };
      this.#waiting.set(requestId, { owner, resolve: settle(resolve), reject: settle(reject) });
      if (!send(requestId)) this.#waiting.get(requestId)?.reject(new SluiceError('AGENT_AWAY', 'the agent has gone'));
    });
  }

  /** An answer nobody waits for any more is dropped. */
  answer(message: Answer): void {
    this.#waiting.get(message.requestId)?.resolve(message);
  }

  lost(owner: object): void {
    for (const one of [...this.#waiting.values()]) {
      if (one.owner === owner) one.reject(new SluiceError('AGENT_AWAY', 'the agent has gone before it answered'));
    }
  }
}
