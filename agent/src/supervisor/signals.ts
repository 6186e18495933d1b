import type { Log } from '../log.ts';

export interface SignalActions {
  /** SIGTERM, SIGINT: drain, end every epoch, then end. */
  readonly terminate: () => Promise<void>;
  /** SIGHUP: hot restart; a second one while the first runs is queued. */
  readonly hotRestart: (reason: string) => Promise<void>;
  /** SIGUSR1: reopen logs, of every Envoy too. */
  readonly reopenLogs: () => void;
  /** SIGUSR2: end and leave the epochs running, for a successor to adopt. */
  readonly leave: () => Promise<void>;
}

/** Binds the signals of a keeper; returns the undoing. A second SIGTERM does not shorten the drain, SIGKILL would. */
export function installSignals(actions: SignalActions, log: Log): () => void {
  const guard = (name: string, task: () => Promise<void> | void) => () => {
    log('info', 'signal', { signal: name });
    Promise.resolve()
      .then(task)
      .catch((error: unknown) => log('error', 'signal failed', { signal: name, error: String(error) }));
  };
  const bound: [NodeJS.Signals, () => void][] = [
    ['SIGTERM', guard('SIGTERM', actions.terminate)],
    ['SIGINT', guard('SIGINT', actions.terminate)],
    ['SIGHUP', guard('SIGHUP', () => actions.hotRestart('SIGHUP'))],
    ['SIGUSR1', guard('SIGUSR1', actions.reopenLogs)],
    ['SIGUSR2', guard('SIGUSR2', actions.leave)],
  ];
  for (const [name, handler] of bound) process.on(name, handler);
  return () => {
    for (const [name, handler] of bound) process.off(name, handler);
  };
}
