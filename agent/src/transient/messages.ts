import type { Launch } from '../epochs/launch.ts';
import type { KeeperConfig } from '../keeper/config.ts';

/**
 * Between the process that is to become Envoy (the front) and the helper beside it: JSON lines, the helper's on its
 * standard output, the front's on the helper's standard input. That the helper's input ends without a word means that
 * the front has become Envoy: its end of the pipe is closed by execve.
 */
export type ToHelper =
  | { readonly type: 'begin'; readonly config: Omit<KeeperConfig, 'log'>; readonly upgrade: boolean }
  | { readonly type: 'failed'; readonly message: string };

export type ToFront =
  | { readonly type: 'become'; readonly envoy: Launch }
  /** Nothing was touched, or all was put back: the old epoch serves. */
  | { readonly type: 'failed'; readonly code: string; readonly message: string; readonly hint: string };
