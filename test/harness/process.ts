import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { createWriteStream, type WriteStream } from 'node:fs';

const LINE_BYTES = 64 * 1024 * 1024;
const TAIL_BYTES = 16 * 1024;

export interface StartOptions {
  readonly name?: string;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** File that gets stdout and stderr. */
  readonly log?: string;
  /** Ready when a line of stdout or stderr matches; ready at once without it. */
  readonly ready?: RegExp;
  readonly readyTimeoutMs?: number;
  readonly onLine?: (line: string) => void;
}

/** One child process of ours: ended with us, whatever happens, unless it was ended before. */
export class Child {
  readonly name: string;
  readonly process: ChildProcess;
  /** Resolves when it has ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  private output = '';

  constructor(name: string, child: ChildProcess, log: WriteStream | undefined, onLine: (line: string) => void) {
    this.name = name;
    this.process = child;
    this.ended = new Promise((resolve) => {
      child.once('error', (error) => {
        this.output += `${error.message}\n`;
        resolve({ code: 127, signal: null });
      });
      child.once('close', (code, signal) => {
        log?.end();
        resolve({ code, signal });
      });
    });
    for (const stream of [child.stdout, child.stderr]) {
      // A line may be long (each id that a server saw), and half of one is none: looked through once, as it comes.
      let rest: string[] = [];
      let length = 0;
      stream?.on('data', (chunk: Buffer) => {
        log?.write(chunk);
        const text = chunk.toString();
        this.output = (this.output + text).slice(-TAIL_BYTES);
        const lines = text.split('\n');
        const last = lines.pop() ?? '';
        for (const line of lines) {
          onLine(rest.length === 0 ? line : rest.join('') + line);
          rest = [];
          length = 0;
        }
        length += last.length;
        if (length > LINE_BYTES) rest = [];
        else if (last !== '') rest.push(last);
      });
    }
    OWN.add(this);
    void this.ended.then(() => OWN.delete(this));
  }

  get pid(): number {
    if (this.process.pid === undefined) throw new Error(`${this.name} was not started`);
    return this.process.pid;
  }

  get running(): boolean {
    return this.process.exitCode === null && this.process.signalCode === null && this.process.pid !== undefined;
  }

  /** The end of what it wrote. */
  get tail(): string {
    return this.output;
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.running) this.process.kill(signal);
  }

  /** SIGTERM, then SIGKILL when it has not ended within the bound. */
  async stop(graceMs = 3_000): Promise<void> {
    if (!this.running) return;
    this.kill('SIGTERM');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    await this.ended;
    clearTimeout(timer);
  }
}

const OWN = new Set<Child>();
let guarded = false;

/** What is still running dies with us: nothing of a test outlives it. */
function guard(): void {
  if (guarded) return;
  guarded = true;
  process.once('exit', () => {
    for (const child of OWN) child.kill('SIGKILL');
  });
}

/** Starts a process and waits until it is ready. @throws Error with the end of its output */
export async function start(command: string, args: readonly string[], options: StartOptions = {}): Promise<Child> {
  guard();
  const name = options.name ?? command;
  // A group of its own: Ctrl-C is for us, and we end it in order.
  const spawnOptions: SpawnOptions = { stdio: ['ignore', 'pipe', 'pipe'], detached: true };
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
  if (options.env !== undefined) spawnOptions.env = options.env;
  const log = options.log === undefined ? undefined : createWriteStream(options.log, { flags: 'a' });
  let becameReady: (() => void) | undefined;
  const ready = new Promise<void>((resolve) => {
    becameReady = resolve;
  });
  const child = new Child(name, spawn(command, args, spawnOptions), log, (line) => {
    options.onLine?.(line);
    if (options.ready?.test(line)) becameReady?.();
  });
  if (options.ready === undefined) return child;
  const limit = options.readyTimeoutMs ?? 20_000;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => {
    timer = setTimeout(() => resolve(`was not ready within ${limit} ms`), limit);
  });
  const died = child.ended.then(({ code, signal }) => `ended with ${signal ?? code} before it was ready`);
  const trouble = await Promise.race([ready.then(() => undefined), late, died]);
  clearTimeout(timer);
  if (trouble !== undefined) {
    child.kill('SIGKILL');
    throw new Error(`${name} ${trouble}; it said last:\n${child.tail.slice(-2_000)}`);
  }
  return child;
}

/** Runs `probe` again until it gives something, each `everyMs`, within `limitMs`. For what gives no event, such as /ready. */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  { limitMs = 15_000, everyMs = 50 }: { limitMs?: number; everyMs?: number } = {},
): Promise<T> {
  const deadline = Date.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() >= deadline) {
      const why = last instanceof Error ? `: ${last.message}` : '';
      throw new Error(`${what}: not within ${limitMs} ms${why}`);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
