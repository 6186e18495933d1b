import { request } from 'node:http';
import path from 'node:path';
import { epochFolders } from '@sluice/agent/epochs/folder';
import { signal } from '@sluice/agent/epochs/proc';
import type { EpochStatus } from '@sluice/contract';
import { type Child, start } from './process.ts';

export interface LogLine {
  readonly level: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

/** A keeper process, with its log as events. */
export class KeeperProcess {
  readonly dir: string;
  readonly lines: LogLine[] = [];
  child!: Child;
  #waiting: { matches: (line: LogLine) => boolean; found: (line: LogLine) => void }[] = [];

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** `within`: a command that runs it somewhere else, such as in another network namespace. */
  static async start(
    config: { dir: string } & Record<string, unknown>,
    within: readonly string[] = [],
  ): Promise<KeeperProcess> {
    const keeper = new KeeperProcess(config.dir);
    const main = path.join(import.meta.dirname, 'keeper-main.ts');
    const [command = '', ...args] = [...within, process.execPath, '--conditions=sluice-source', main];
    keeper.child = await start(command, [...args, JSON.stringify(config)], {
      name: 'keeper',
      ready: /"keeper ready"/,
      readyTimeoutMs: 40_000,
      onLine: (text) => keeper.#onLine(text),
    });
    return keeper;
  }

  #onLine(text: string): void {
    if (!text.startsWith('{')) return;
    const line = JSON.parse(text) as LogLine;
    this.lines.push(line);
    for (const one of this.#waiting.filter((w) => w.matches(line))) one.found(line);
  }

  /** The first line that matches, also one already written. Rejects after `limitMs`, or when the keeper ends before. */
  async line(message: string, matches: (line: LogLine) => boolean = () => true, limitMs = 30_000): Promise<LogLine> {
    const wanted = (line: LogLine) => line.message === message && matches(line);
    const already = this.lines.find(wanted);
    if (already) return already;
    const { promise, resolve, reject } = Promise.withResolvers<LogLine>();
    const entry = { matches: wanted, found: resolve };
    this.#waiting.push(entry);
    const tail = () =>
      this.lines
        .slice(-8)
        .map((l) => JSON.stringify(l))
        .join('\n');
    const timer = setTimeout(
      () => reject(new Error(`"${message}" not within ${limitMs} ms; last lines:\n${tail()}`)),
      limitMs,
    );
    void this.child.ended.then(() => reject(new Error(`the keeper ended before "${message}":\n${tail()}`)));
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting = this.#waiting.filter((w) => w !== entry);
    }
  }

  async call(method: string, url: string, body?: unknown): Promise<{ status: number; body: Record<string, unknown> }> {
    return new Promise((resolve, reject) => {
      const call = request(
        { socketPath: path.join(this.dir, 'agent.sock'), method, path: url, timeout: 60_000 },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk) => {
            text += chunk;
          });
          response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text || '{}') }));
        },
      );
      call.on('error', reject);
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  async epochs(): Promise<EpochStatus[]> {
    return (await this.call('GET', '/v1/status')).body.epochs as EpochStatus[];
  }

  async serving(): Promise<EpochStatus> {
    const found = (await this.epochs()).findLast((e) => e.state === 'serving');
    if (!found) throw new Error('no epoch serves');
    return found;
  }
}

/** Ends every Envoy that a keeper's run folder knows of, also when the keeper is dead. */
export function endEpochs(dir: string): void {
  for (const folder of epochFolders(path.join(dir, 'epochs'))) {
    const meta = folder.readMeta();
    if (meta) signal({ pid: meta.pid, startTime: meta.startTime }, 'SIGKILL');
  }
}
