import { closeSync, openSync } from 'node:fs';
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { bindDatagram, receive, send } from './datagram.ts';
import { dup, inode, isListening, pidfdGetfd, pidfdOpen } from './fds.ts';
import { isSystemError } from './libc.ts';
import { listenFds } from './listeners.ts';
import { watchReadable } from './poller.ts';

const name = (suffix: string) => `sluice-test-${process.pid}-${suffix}`;

function nextReadable(fd: number): Promise<void> {
  return new Promise((resolve) => {
    const watch = watchReadable(fd, () => {
      watch.stop();
      resolve();
    });
  });
}

test('a datagram arrives with its descriptors and the name of its sender', async () => {
  const a = bindDatagram(name('a'));
  const b = bindDatagram(name('b'));
  const file = openSync('/dev/null', 'r');
  expect(receive(b)).toBeUndefined();
  const readable = nextReadable(b);
  expect(send(a, name('b'), Buffer.from('hello'), [file])).toBe('sent');
  await readable;
  const got = receive(b)!;
  expect(got.data.toString()).toBe('hello');
  expect(got.from).toBe(name('a'));
  expect(got.fds).toHaveLength(1);
  expect(inode(got.fds[0]!)).toBe(inode(file));
  for (const fd of [a, b, file, ...got.fds]) closeSync(fd);
});

test('a name is taken once, and a name that nobody holds is gone', () => {
  const a = bindDatagram(name('c'));
  expect(() => bindDatagram(name('c'))).toThrow(/EADDRINUSE/);
  closeSync(a);
  const b = bindDatagram(name('d'));
  expect(send(b, name('c'), Buffer.from('x'))).toBe('gone');
  closeSync(b);
});

test('a full queue is said and not waited for', () => {
  const a = bindDatagram(name('e'));
  const b = bindDatagram(name('f'));
  let sent = 0;
  while (send(a, name('f'), Buffer.from('x')) === 'sent') sent++;
  expect(sent).toBeGreaterThan(0);
  closeSync(a);
  closeSync(b);
});

test('watches may begin and end while a poll is under way', async () => {
  const fds = [0, 1, 2, 3].map((i) => bindDatagram(name(`w${i}`)));
  const all = fds.map(nextReadable);
  for (const i of [3, 1, 0, 2]) {
    send(fds[0]!, name(`w${i}`), Buffer.from('x'));
    await all[i];
  }
  for (const fd of fds) closeSync(fd);
});

test('a listen socket is known by address, also through its dup', async () => {
  for (const [host, scheme] of [
    ['127.0.0.1', 'tcp://127.0.0.1'],
    ['::1', 'tcp://[::1]'],
  ] as const) {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    const { port } = server.address() as { port: number };
    const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
    const copy = dup(fd);
    expect(isListening(copy)).toBe(true);
    expect(
      listenFds(process.pid)
        .filter((each) => each.inode === inode(fd))
        .map((each) => each.address),
    ).toEqual([`${scheme}:${port}`, `${scheme}:${port}`]);
    const pidfd = pidfdOpen(process.pid)!;
    const third = pidfdGetfd(pidfd, fd);
    expect(inode(third)).toBe(inode(copy));
    for (const each of [copy, third, pidfd]) closeSync(each);
    server.close();
  }
});

test('a failed call carries code, errno and syscall', () => {
  expect(pidfdOpen(2 ** 22 + 1)).toBeUndefined();
  try {
    pidfdGetfd(0, 0);
    expect.unreachable();
  } catch (error) {
    expect(isSystemError(error, 'EBADF')).toBe(true);
    expect(error).toMatchObject({ code: 'EBADF', errno: -9, syscall: 'pidfd_getfd' });
  }
});
