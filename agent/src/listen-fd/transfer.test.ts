import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { close, inode } from '../native/fds.ts';
import { bindListen, boundAddress } from '../native/listen-socket.ts';
import { connectUnix, sendStream } from '../native/unix-stream.ts';
import { type Giver, type Giving, type Listener, offerListeners } from './give.ts';
import { takeListeners, takeWhenFree } from './take.ts';

let dir: string;
let path: string;
let fds: number[];
const givings: Giving[] = [];

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-fd-'));
  path = join(dir, 'fd.sock');
  fds = [bindListen('127.0.0.1:0'), bindListen('127.0.0.1:0')];
});
afterEach(async () => {
  for (const giving of givings.splice(0)) await giving.close();
  for (const fd of fds) close(fd);
  rmSync(dir, { recursive: true, force: true });
});

class FakeGiver implements Giver {
  readonly calls: string[] = [];
  readonly over = Promise.withResolvers<void>();
  readonly resumed = Promise.withResolvers<void>();
  sockets: Listener[] = fds.map((fd) => ({ fd, address: boundAddress(fd) }));
  listeners() {
    return this.sockets;
  }
  stop() {
    this.calls.push('stop');
  }
  resume() {
    this.calls.push('resume');
    this.resumed.resolve();
  }
  released() {
    this.calls.push('released');
    this.over.resolve();
  }
}

const lines: string[] = [];
async function offer(giver: Giver, bounds = {}): Promise<Giving> {
  lines.length = 0;
  const giving = await offerListeners(path, giver, {
    log: (_, message, fields) => lines.push(`${message} ${fields?.code ?? ''} ${fields?.error ?? ''}`),
    bounds,
  });
  givings.push(giving);
  return giving;
}

const all = { wanted: () => true };
const openFds = () => readdirSync('/proc/self/fd').length;

it('passes the sockets themselves, and only then the old side stops', async () => {
  const giver = new FakeGiver();
  await offer(giver);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const taking = await takeListeners(path, all);
  const got = taking?.listeners ?? [];
  expect(got.map(({ fd }) => inode(fd))).toEqual(fds.map(inode));
  expect(got.map(({ address }) => address)).toEqual(fds.map(boundAddress));
  expect(giver.calls).toEqual([]);
  let owned = false;
  const result = await taking?.accepting(async () => {
    expect(giver.calls).toEqual(['stop']);
    owned = true;
  });
  expect(result).toEqual({ released: true });
  expect(owned).toBe(true);
  await giver.over.promise;
  expect(giver.calls).toEqual(['stop', 'released']);
  for (const { fd } of got) close(fd);
});

it('passes 100 sockets, in several messages', async () => {
  const more = Array.from({ length: 98 }, () => bindListen('127.0.0.1:0'));
  fds.push(...more);
  await offer(new FakeGiver());
  const taking = await takeListeners(path, all);
  expect(taking?.listeners.map(({ fd }) => inode(fd))).toEqual(fds.map(inode));
  for (const { fd } of taking?.listeners ?? []) close(fd);
  taking?.abandon({ code: 'ABORTED', message: 'enough' });
});

it('takes only what it wants', async () => {
  const giver = new FakeGiver();
  await offer(giver);
  const second = boundAddress(fds[1] as number);
  const taking = await takeListeners(path, { wanted: (address) => address === second });
  expect(taking?.listeners.map(({ address }) => address)).toEqual([second]);
  for (const { fd } of taking?.listeners ?? []) close(fd);
  await taking?.accepting(async () => {});
});

it('finds nobody: no file, or that of a dead process', async () => {
  expect(await takeListeners(path, all)).toBeUndefined();
  const { execPath } = process;
  await promisify(execFile)(execPath, [
    '-e',
    `require('net').createServer().listen(${JSON.stringify(path)},()=>process.kill(process.pid,9))`,
  ]).catch(() => {});
  expect(existsSync(path)).toBe(true);
  expect(await takeListeners(path, all)).toBeUndefined();
});

it('a successor that can not serve leaves the old side accepting and the socket open for the next', async () => {
  const giver = new FakeGiver();
  await offer(giver);
  const before = openFds();
  const taking = await takeListeners(path, all);
  taking?.abandon({ code: 'EPOCH_DIED', message: 'it did not start' });
  for (const { fd } of taking?.listeners ?? []) close(fd);
  const next = await takeWhenFree(path, { ...all, boundMs: 5_000 });
  for (const { fd } of next?.listeners ?? []) close(fd);
  expect(giver.calls).toEqual([]);
  expect(lines.join()).toContain('it did not start');
  next?.abandon({ code: 'ABORTED', message: 'enough' });
  // Descriptors of the two transfers are closed; the poller's own comes and goes.
  await expect.poll(openFds).toBeLessThanOrEqual(before + 1);
});

it('a successor that dies after it said that it accepts: the old side accepts again', async () => {
  const giver = new FakeGiver();
  giver.stop = () => {
    giver.calls.push('stop');
    close(raw);
  };
  await offer(giver);
  const raw = connectUnix(path) as number;
  for (const line of [
    { type: 'hello', protocol: 'sluice-fd/1' },
    { type: 'take', listeners: [0] },
    { type: 'accepting' },
  ]) {
    sendStream(raw, Buffer.from(`${JSON.stringify(line)}\n`));
  }
  await giver.resumed.promise;
  expect(giver.calls).toEqual(['stop', 'resume']);
});

it('a successor that hangs is given up at the bound', async () => {
  const giver = new FakeGiver();
  await offer(giver, { accepting: 50 });
  const taking = await takeListeners(path, all);
  for (const { fd } of taking?.listeners ?? []) close(fd);
  await expect.poll(() => lines.join()).toContain('within the bound');
  await expect(taking?.accepting(async () => {})).rejects.toThrow(/expected accepting, found nothing within the bound/);
  expect(giver.calls).toEqual([]);
});

it('one transfer at a time; the next is told', async () => {
  await offer(new FakeGiver());
  const first = await takeListeners(path, all);
  await expect(takeListeners(path, all)).rejects.toMatchObject({ code: 'UPGRADE_CONFLICT' });
  for (const { fd } of first?.listeners ?? []) close(fd);
  first?.abandon({ code: 'ABORTED', message: 'enough' });
});

it.each([
  ['garbage', 'no json\n', 'expected a JSON object'],
  ['a line without end', 'x'.repeat(70_000), 'expected a line of at most'],
  ['another version', `{"type":"hello","protocol":"sluice-fd/9"}\n`, 'expected protocol sluice-fd/1'],
  ['another message', `{"type":"sing"}\n`, 'expected a message of sluice-fd/1'],
])('%s is refused with a clear error', async (_, text, error) => {
  const giver = new FakeGiver();
  await offer(giver);
  const socket = net.connect(path);
  socket.on('error', () => {});
  socket.write(text);
  let said = '';
  socket.setEncoding('utf8').on('data', (chunk) => {
    said += chunk;
  });
  await once(socket, 'close');
  await expect.poll(() => lines.join()).toContain(error);
  expect(giver.calls).toEqual([]);
  if (!text.startsWith('x')) expect(said).toContain(error);
});

it('descriptors sent to the old side are closed and refused', async () => {
  const giver = new FakeGiver();
  await offer(giver);
  const raw = connectUnix(path) as number;
  const before = openFds();
  sendStream(raw, Buffer.from('{"type":"hello","protocol":"sluice-fd/1"}\n'), fds);
  await expect.poll(() => lines.join()).toContain('expected no descriptor with hello');
  expect(openFds()).toBeLessThanOrEqual(before + 1);
  close(raw);
});

it('an offer that is no listen socket is refused', async () => {
  const giver = new FakeGiver();
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  giver.sockets = [{ address: '127.0.0.1:1', fd: fds[0] as number }];
  await offer(giver);
  await expect(takeListeners(path, all)).rejects.toThrow(/expected a socket that listens on 127.0.0.1:1/);
  server.close();
});

const asRoot = process.getuid?.() === 0;
it.skipIf(!asRoot)('a process of another user is refused (needs root to try)', async () => {
  const giver = new FakeGiver();
  await offer(giver);
  chmodSync(dir, 0o755);
  chmodSync(path, 0o666);
  const script = `const s = require('net').connect(${JSON.stringify(path)}); let t = '';
    s.on('data', (d) => { t += d; }).on('error', () => {}).on('close', () => console.log(t));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', script], {
    uid: 65_534,
    gid: 65_534,
    cwd: '/',
  });
  expect(JSON.parse(stdout)).toMatchObject({ type: 'refused', code: 'LISTEN_FD_PEER' });
  expect(stdout).toMatch(/expected a process of user 0 or root, found process \d+ of user 65534/);
  expect(giver.calls).toEqual([]);
});

it.skipIf(!asRoot)('an old side of another user is refused, and hears nothing (needs root to try)', async () => {
  chmodSync(dir, 0o777);
  const script = `require('net').createServer((s) => {
    let heard = 0;
    s.on('data', (d) => { heard += d.length; }).on('error', () => {}).on('close', () => console.log('heard', heard));
  }).listen(${JSON.stringify(path)}, () => console.log('listens'));`;
  const old = spawn(process.execPath, ['-e', script], {
    uid: 65_534,
    gid: 65_534,
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const said = createInterface(old.stdout)[Symbol.asyncIterator]();
  try {
    expect((await said.next()).value).toBe('listens');
    const before = openFds();
    const refused = {
      code: 'LISTEN_FD_PEER',
      message: `expected a process of user 0 or root, found process ${old.pid} of user 65534`,
    };
    await expect(takeListeners(path, all)).rejects.toMatchObject(refused);
    expect((await said.next()).value).toBe('heard 0');
    // It is not a transfer under way: waiting would not help.
    await expect(takeWhenFree(path, { ...all, boundMs: 600_000 })).rejects.toMatchObject(refused);
    expect((await said.next()).value).toBe('heard 0');
    expect(openFds()).toBeLessThanOrEqual(before);
  } finally {
    old.kill('SIGKILL');
  }
});
