import { closeSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { takeListeners } from '../listen-fd/take.ts';
import type { Log } from '../log.ts';
import { type HandedStatusPort, openHandedStatusPort } from './status-handoff.ts';

let shared: string;
let port: number;
const opened: HandedStatusPort[] = [];
beforeEach(async () => {
  shared = mkdtempSync(join(tmpdir(), 'sluice-status-'));
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  port = (probe.address() as { port: number }).port;
  await new Promise((resolve) => probe.close(resolve));
});
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
  rmSync(shared, { recursive: true });
});

async function open(slot: string, claimMs?: number, log: Log = () => {}): Promise<HandedStatusPort> {
  const health = () => ({ ok: true, text: slot });
  const made = await openHandedStatusPort({
    address: `127.0.0.1:${port}`,
    handlers: { live: health, ready: health, metrics: () => '' },
    shared,
    slot,
    log,
    signal: new AbortController().signal,
    claimMs,
  });
  opened.push(made);
  return made;
}

/** The slot that answers, or the error's code. */
function probe(agent?: Agent): Promise<string> {
  return new Promise((resolve) => {
    const call = get({ port, host: '127.0.0.1', path: '/healthz/ready', agent: agent ?? false }, (response) => {
      let text = '';
      response.on('data', (part) => {
        text += part;
      });
      response.on('end', () => resolve(text.trim()));
      response.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    call.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

/** Probes without a pause, until stopped: what each of them got. */
function hammer(agent?: Agent): { stop(): Promise<Map<string, number>> } {
  const got = new Map<string, number>();
  let on = true;
  const run = (async () => {
    while (on) {
      const answer = await probe(agent);
      got.set(answer, (got.get(answer) ?? 0) + 1);
    }
  })();
  return {
    async stop() {
      on = false;
      await run;
      return got;
    },
  };
}

test('through a flip and back and forth no probe is refused and none goes unanswered', async () => {
  let holder = await open('1');
  const kept = new Agent({ keepAlive: true });
  const hammers = [hammer(), hammer(), hammer(), hammer(kept)];
  for (const slot of ['2', '1', '2', '1']) {
    const next = await open(slot);
    // Until it claims it the other one answers.
    expect(await probe()).not.toBe(slot);
    await Promise.all([next.claim(), holder.given()]);
    expect(await probe()).toBe(slot);
    await holder.close();
    holder = next;
  }
  for (const one of hammers) {
    const got = await one.stop();
    expect([...got.keys()].sort()).toEqual(['1', '2']);
  }
  kept.destroy();
});

test('a holder that is gone leaves the port to be bound; one without a port has nothing to give', async () => {
  const one = await open('1');
  const two = await open('2');
  await one.close();
  await two.claim();
  expect(await probe()).toBe('2');
  await two.claim();
  await one.given();
});

test('a peer that fails after this one has stopped leaves it answering', async () => {
  await open('1');
  const hammered = hammer();
  const taking = await takeListeners(join(shared, 'status-1.sock'), { wanted: () => true });
  const failing = taking?.accepting(() => Promise.reject(new Error('no room')));
  await expect(failing).rejects.toThrow('no room');
  for (const { fd } of taking?.listeners ?? []) closeSync(fd);
  expect(await probe()).toBe('1');
  expect([...(await hammered.stop()).keys()]).toEqual(['1']);
});

test('a port of somebody else is refused', async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(port, '127.0.0.1', resolve));
  await expect(open('1')).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  await new Promise((resolve) => other.close(resolve));
});

test('a port that can not be had for long is told once, and had as soon as it can', async () => {
  const holds = createServer();
  await new Promise<void>((resolve) => holds.listen(port, '127.0.0.1', resolve));
  // It offers the port and never gives it.
  const offers = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => offers.listen(join(shared, 'status-1.sock'), resolve));
  const errors: string[] = [];
  const two = await open('2', 50, (level, message) => {
    if (level === 'error') errors.push(message);
  });
  const claimed = two.claim();
  await vi.waitFor(() => expect(errors).toHaveLength(1), 10_000);
  await Promise.all([holds, offers].map((one) => new Promise((resolve) => one.close(resolve))));
  await claimed;
  expect(await probe()).toBe('2');
  expect(errors).toHaveLength(1);
});
