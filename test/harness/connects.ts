import { readdirSync, readFileSync } from 'node:fs';
import net from 'node:net';
import { Conditions } from './conditions.ts';
import { synsSentAgain } from './tcp-info.ts';

const REQUEST = 'GET / HTTP/1.1\r\nhost: load\r\nconnection: close\r\n\r\n';
/** A lost SYN is sent again after a second. One that took so long may as well have waited for this process: the kernel is asked. */
const SLOW_CONNECT_MS = 900;
const ANSWER_BOUND_MS = 15_000;

export interface ConnectCounts {
  answered: number;
  /** ECONNREFUSED, or a SYN that had to be sent again. */
  refused: number;
  /** Connected, and then no whole answer. */
  lost: number;
  /** When each of the lost ones was begun, by performance.now(). */
  readonly lostBegun: number[];
  readonly failures: string[];
}

export interface ConnectLoad {
  readonly counts: ConnectCounts;
  /** Looks with each connection that ends. Rejects after 30 s. */
  until(what: string, holds: (counts: ConnectCounts) => boolean): Promise<void>;
  /** After so many more. */
  answers(more: number): Promise<void>;
  stop(): Promise<ConnectCounts>;
}

/**
 * New connections at a steady rate, one request on each, never repeated. `stop()` waits for those under way. Paced by the
 * clock and not by answers, so that a stall shows as connections waiting and not as a lower rate.
 */
export function newConnections(port: number, perSecond: number, host = '127.0.0.1'): ConnectLoad {
  const counts: ConnectCounts = { answered: 0, refused: 0, lost: 0, lostBegun: [], failures: [] };
  const pending = new Set<Promise<void>>();
  const conditions = new Conditions();
  const begun = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - begun) / 1_000) * perSecond);
    for (; sent < due && pending.size < 5_000; sent++) {
      const one = connectOnce({ port, host }, counts);
      pending.add(one);
      void one.finally(() => {
        pending.delete(one);
        conditions.changed();
      });
    }
    sent = Math.max(sent, due);
  }, 5);
  const untilCounted: ConnectLoad['until'] = (what, holds) => conditions.until(what, () => holds(counts));
  return {
    counts,
    until: untilCounted,
    answers(more) {
      const wanted = counts.answered + more;
      return untilCounted(`${wanted} answers`, ({ answered }) => answered >= wanted);
    },
    async stop() {
      clearInterval(timer);
      await Promise.all(pending);
      return counts;
    },
  };
}

const DEATH_BOUND_MS = 5_000;

/**
 * Kills a process and stands still until it is dead: on a busy machine a worker may be in the middle of an accept when the
 * signal comes, and ends it. What is begun after the answer (performance.now()) was begun after its death.
 */
export function killAtOnce(pid: number): number {
  process.kill(pid, 'SIGKILL');
  const end = performance.now() + DEATH_BOUND_MS;
  while (lives(pid) && performance.now() < end);
  return performance.now();
}

function lives(pid: number): boolean {
  const gone = (error: unknown): boolean => ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
  try {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      try {
        const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1');
        if (!/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2))) return true;
      } catch (error) {
        if (!gone(error)) throw error; // else: this thread has ended
      }
    }
    return false;
  } catch (error) {
    if (gone(error)) return false;
    throw error;
  }
}

/**
 * What a process that is killed may take with it: what was under way on it. One that was begun after `killedAt` can only have
 * met the ones that live, or a queue that outlives the process.
 */
export function lostAfter(counts: ConnectCounts, killedAt: number): number {
  return counts.lostBegun.filter((at) => at > killedAt).length;
}

function connectOnce(to: { port: number; host: string }, counts: ConnectCounts): Promise<void> {
  return new Promise((resolve) => {
    // The SYN goes out in this turn of the loop.
    const at = performance.now();
    let connectedAt: number | undefined;
    let synLost = false;
    let text = '';
    const socket = net.connect(to);
    socket.setTimeout(ANSWER_BOUND_MS, () => socket.destroy(new Error('no answer')));
    socket.setEncoding('latin1');
    socket.on('connect', () => {
      connectedAt = performance.now();
      synLost = connectedAt - at > SLOW_CONNECT_MS && synsSentAgain(socket) !== 0;
      socket.write(REQUEST);
    });
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    let error: Error | undefined;
    socket.on('error', (e) => {
      error = e;
    });
    socket.on('close', () => {
      const whole = /^HTTP\/1\.1 200 /.test(text) && text.endsWith('done\n');
      if (connectedAt === undefined || synLost) {
        counts.refused++;
        counts.failures.push(error?.message ?? `connected after ${Math.round((connectedAt ?? 0) - at)} ms`);
      } else if (whole) counts.answered++;
      else {
        counts.lost++;
        counts.lostBegun.push(at);
        counts.failures.push(error?.message ?? `cut short: ${JSON.stringify(text.slice(0, 60))}`);
      }
      resolve();
    });
  });
}
