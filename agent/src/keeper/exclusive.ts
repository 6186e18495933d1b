/**
 * Runs tasks one after the other: two starts of an epoch never overlap (two SIGHUPs 35 ms apart killed a healthy Envoy
 * under hot-restarter.py). A failed task does not stop the next.
 */
export class Exclusive {
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  readonly #onIdle: () => void;

  /** `onIdle` is called whenever the last task has ended. */
  constructor(onIdle: () => void = () => {}) {
    this.#onIdle = onIdle;
  }

  get busy(): boolean {
    return this.#waiting > 0;
  }

  run<T>(task: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const result = this.#tail.then(task);
    this.#tail = result
      .catch(() => {})
      .finally(() => {
        this.#waiting--;
        if (this.#waiting === 0) this.#onIdle();
      });
    return result;
  }
}
