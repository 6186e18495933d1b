import { close, pidfdOpen } from './fds.ts';
import { type Watch, watchReadable } from './poller.ts';

export interface EndWatch {
  /** No call after this. Harmless when it has ended. */
  stop(): void;
}

/** Calls once when the process ends, whoever's child it is; soon, and not before this returns, when there is none. */
export function watchEnd(pid: number, onEnd: () => void): EndWatch {
  const fd = pidfdOpen(pid);
  if (fd === undefined) {
    const soon = setImmediate(onEnd);
    return { stop: () => clearImmediate(soon) };
  }
  let watch: Watch | undefined;
  const stop = () => {
    if (watch === undefined) return;
    watch.stop();
    watch = undefined;
    close(fd);
  };
  watch = watchReadable(fd, () => {
    stop();
    onEnd();
  });
  return { stop };
}

/** Resolves when the process has ended, after `limitMs` at the latest: then false. */
export function untilEnded(pid: number, limitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (ended: boolean) => {
      clearTimeout(timer);
      watch.stop();
      resolve(ended);
    };
    const timer = setTimeout(done, limitMs, false);
    const watch = watchEnd(pid, () => done(true));
  });
}
