import { existsSync, watch } from 'node:fs';
import { request } from 'node:http';
import { dirname, join, resolve } from 'node:path';
import { SluiceError } from '@sluice/contract';
import { knownCode } from './failure.ts';

const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** One call on the agent's Unix socket in `dir`. AGENT_AWAY when nobody listens there. */
export async function callAgent(
  dir: string,
  method: 'GET' | 'POST',
  path: string,
  options: { readonly body?: unknown; readonly timeoutMs?: number } = {},
): Promise<unknown> {
  const socketPath = join(dir, 'agent.sock');
  const { status, text } = await new Promise<{ status: number; text: string }>((resolve, reject) => {
    const away = (error: Error): void =>
      reject(
        new SluiceError('AGENT_AWAY', `expected an agent at ${socketPath}, found: ${error.message || error.name}`, {
          cause: error,
          hint: 'is it running? give its folder by --dir or SLUICE_DIR',
        }),
      );
    const sent = request(
      { socketPath, method, path, agent: false, signal: AbortSignal.timeout(options.timeoutMs ?? 15_000) },
      (response) => {
        let size = 0;
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => {
          size += part.length;
          if (size > MAX_ANSWER_BYTES) response.destroy(new Error('an answer without end'));
          else parts.push(part);
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') }),
        );
        response.on('error', away);
      },
    );
    sent.on('error', away);
    sent.end(options.body === undefined ? undefined : JSON.stringify(options.body));
  });
  let value: unknown;
  try {
    value = text === '' ? {} : JSON.parse(text);
  } catch (cause) {
    throw new SluiceError('AGENT_AWAY', `expected JSON from ${socketPath}, found something else`, { cause });
  }
  if (status < 300) return value;
  const said = value as { code?: unknown; message?: unknown; hint?: unknown };
  throw new SluiceError(knownCode(said.code) ?? 'INTERNAL', String(said.message ?? `HTTP ${status}`), {
    ...(typeof said.hint === 'string' && { hint: said.hint }),
  });
}

/** Waits until the agent's newest epoch serves. The agent itself may not have started yet: a postStart hook is early. */
export async function waitForAgent(dir: string, timeoutMs: number): Promise<unknown> {
  const until = Date.now() + timeoutMs;
  for (;;) {
    // Watched before it is asked: an agent that comes in between is not missed.
    const folder = nearestFolder(dir);
    const changed = Promise.withResolvers<boolean>();
    const watcher = watch(folder, () => changed.resolve(true));
    watcher.on('error', () => changed.resolve(true));
    const left = Math.max(1, until - Date.now());
    const timer = setTimeout(() => changed.resolve(false), left);
    try {
      return await callAgent(dir, 'GET', `/v1/wait?timeout=${left}`, { timeoutMs: left + 2_000 });
    } catch (thrown) {
      if (!(thrown instanceof SluiceError) || thrown.code !== 'AGENT_AWAY') throw thrown;
      if (!(await changed.promise)) {
        throw new SluiceError('TIMEOUT', `expected an agent within ${timeoutMs} ms; ${thrown.message}`, {
          cause: thrown,
        });
      }
    } finally {
      clearTimeout(timer);
      watcher.close();
    }
  }
}

/** The run folder, or what there is of the way to it. */
function nearestFolder(dir: string): string {
  const whole = resolve(dir);
  return existsSync(whole) || dirname(whole) === whole ? whole : nearestFolder(dirname(whole));
}
