import { asClient } from './connections.ts';
import { Tally } from './tally.ts';

/** Where the clients connect to: ports of Envoy's listeners. */
export interface Targets {
  readonly host: string;
  readonly http: number;
  readonly tls: number;
  readonly tcp: number;
}

/** One kind of client. It never retries: each request is answered wholly and rightly, or counted. */
export abstract class LoadClient {
  readonly tally: Tally;
  protected stopping = false;
  private running: Promise<unknown>[] = [];
  private wake: (() => void)[] = [];

  constructor(name: string) {
    this.tally = new Tally(name);
  }

  get name(): string {
    return this.tally.name;
  }

  protected abstract run(): Promise<unknown>[];

  start(): void {
    asClient(this.name, () => {
      this.running = this.run();
    });
  }

  /** Begins nothing new and waits until what was begun has ended. */
  async stop(): Promise<void> {
    this.stopping = true;
    for (const wake of this.wake.splice(0)) wake();
    await Promise.all(this.running);
  }

  /** A pause that `stop` ends. */
  protected pause(ms: number): Promise<void> {
    if (this.stopping) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.wake = this.wake.filter((each) => each !== done);
        resolve();
      };
      const timer = setTimeout(done, Math.max(0, ms));
      this.wake.push(done);
    });
  }

  /** Calls `once` at `perSecond`, one after the other; late ones are made up for within a second, not more. */
  protected async paced(perSecond: number, once: () => Promise<void>): Promise<void> {
    const gap = 1000 / perSecond;
    let due = Date.now() + Math.random() * gap;
    while (!this.stopping) {
      await this.pause(due - Date.now());
      if (this.stopping) return;
      await once();
      due = Math.max(due + gap, Date.now() - 1000);
    }
  }
}
