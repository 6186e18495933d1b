import { close } from '@sluice/agent/native/fds';
import { connectUnix, receiveStream, sendStream } from '@sluice/agent/native/unix-stream';
import { until } from './process.ts';

/** Speaks the protocol as a successor that accepts, and is gone when the other side has stopped and said so. */
export async function dieAfterAccepting(socket: string): Promise<void> {
  const fd = connectUnix(socket) as number;
  for (const line of [
    { type: 'hello', protocol: 'sluice-fd/1' },
    { type: 'take', listeners: [0] },
    { type: 'accepting' },
  ]) {
    sendStream(fd, Buffer.from(`${JSON.stringify(line)}\n`));
  }
  let said = '';
  await until('it has stopped', () => {
    const received = receiveStream(fd);
    for (const each of received?.fds ?? []) close(each);
    said += received?.data.toString() ?? '';
    return said.includes('"released"') ? true : undefined;
  });
  close(fd);
}
