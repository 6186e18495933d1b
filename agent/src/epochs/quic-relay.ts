import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type ErrorCode, SluiceError } from '@sluice/contract';
import type { Party } from '../broker/index.ts';
import { entryPoint } from '../entry-point.ts';
import { identify, type ProcessId } from './proc.ts';

/** The one argument of quic-relay-main.ts. */
export interface RelayConfig {
  readonly baseId: number;
  readonly parent: Party;
  readonly child: Party;
  /** The old Envoy, and the FIFO that tells its death. */
  readonly old: ProcessId;
  readonly alive: string;
}

/** What it says, one JSON object a line. */
export type RelayWord =
  | { readonly event: 'relaying' }
  | { readonly event: 'failed'; readonly code: ErrorCode; readonly message: string; readonly hint?: string }
  | { readonly event: 'trouble'; readonly error: string }
  | { readonly event: 'ended'; readonly packets: number };

/** A process of Node starts, on a machine that has other things to do. */
const READY_MS = 10_000;

/**
 * Starts a process that relays until the old Envoy is gone, whatever becomes of this one. `note` is told of it before it
 * holds anything: when this process dies first, its successor can end it. Resolves when it relays; rejects with
 * UPGRADE_CONFLICT as relayUdp does, EPOCH_DIED or EPOCH_TIMEOUT when there is no relay.
 */
export async function startRelay(
  config: RelayConfig,
  note: (relay: ProcessId) => void,
  onWord: (word: RelayWord) => void,
): Promise<void> {
  const main = entryPoint(import.meta, 'quic-relay-main');
  // A session of its own: what ends this process's group must not end it.
  const child = spawn(process.execPath, [...process.execArgv, main, JSON.stringify(config)], {
    detached: true,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const relay = child.pid === undefined ? undefined : identify(child.pid);
  try {
    if (relay !== undefined) note(relay);
    await untilRelaying(child, onWord);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  // Neither keeps this process from ending.
  child.unref();
  (child.stdout as unknown as { unref(): void }).unref();
}

function untilRelaying(child: ChildProcess, onWord: (word: RelayWord) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new SluiceError('EPOCH_TIMEOUT', `expected the QUIC relay within ${READY_MS} ms, found it is not ready`));
    }, READY_MS);
    const settled = (settle: () => void) => {
      clearTimeout(timer);
      settle();
    };
    child.once('error', (error) => settled(() => reject(died(child, error))));
    child.once('close', () => settled(() => reject(died(child))));
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const word = JSON.parse(line) as RelayWord;
      if (word.event === 'relaying') settled(resolve);
      else if (word.event === 'failed') {
        const { code, message, hint } = word;
        settled(() => reject(new SluiceError(code, message, hint === undefined ? {} : { hint })));
      } else onWord(word);
    });
  });
}

function died(child: ChildProcess, cause?: Error): SluiceError {
  const found = cause?.message ?? `it ended with ${child.exitCode ?? child.signalCode}`;
  return new SluiceError('EPOCH_DIED', `expected a process that relays QUIC packets, found: ${found}`, { cause });
}
