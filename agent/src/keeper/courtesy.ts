import { asOthers, letGoFirst } from '../native/sched.ts';

export interface Scheduler {
  letGoFirst(pid: number): void;
  asOthers(pid: number): void;
}

/**
 * Of all that runs on this machine a request has nobody to wait for but Envoy: while an epoch is checked, started or
 * drained, this process and what it starts let those go first that wake for a request. At all other times it is as quick
 * as any: after a crash without hot restart each millisecond until it acts loses what connects in it.
 */
export class Courtesy {
  readonly #liveEpochs: () => number;
  readonly #pid: number;
  readonly #scheduler: Scheduler;
  #works = 0;
  #given = false;

  constructor(liveEpochs: () => number, pid = process.pid, scheduler: Scheduler = { letGoFirst, asOthers }) {
    this.#liveEpochs = liveEpochs;
    this.#pid = pid;
    this.#scheduler = scheduler;
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#works++;
    this.look();
    try {
      return await work();
    } finally {
      this.#works--;
      this.look();
    }
  }

  /** To be called when an epoch has come or gone. */
  look(): void {
    const wanted = this.#works > 0 || this.#liveEpochs() > 1;
    if (wanted === this.#given) return;
    this.#given = wanted;
    if (wanted) this.#scheduler.letGoFirst(this.#pid);
    else this.#scheduler.asOthers(this.#pid);
  }
}
