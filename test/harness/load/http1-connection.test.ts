import net from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Http1Connection } from './http1-connection.ts';

/** A server that answers with what a test gives it, in the pieces given, then ends or stays. */
describe('Http1Connection', () => {
  let server: net.Server;
  let pieces: string[] = [];
  let end = false;
  let connection: Http1Connection;

  beforeEach(async () => {
    server = net.createServer((socket) => {
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.once('data', async () => {
        for (const piece of pieces) {
          socket.write(piece);
          await new Promise((resolve) => setImmediate(resolve));
        }
        if (end) socket.end();
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    connection = new Http1Connection(net.connect((server.address() as net.AddressInfo).port, '127.0.0.1'));
  });
  afterEach(() => {
    connection.socket.destroy();
    server.close();
  });
  const ask = (given: string[], thenEnd = false) => {
    pieces = given;
    end = thenEnd;
    return connection.request('GET / HTTP/1.1\r\n\r\n', undefined, 5_000);
  };

  it('reads a body by its length, in any pieces', async () => {
    const answer = await ask([...'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello']);
    expect(answer).toMatchObject({ status: 200, body: Buffer.from('hello') });
    expect(connection.done).toBe(false);
  });

  it('reads a chunked body', async () => {
    const answer = await ask([
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n',
      '2\r\nde\r\n0\r\n\r\n',
    ]);
    expect(answer.body.toString()).toBe('abcde');
  });

  it('sends nothing more after Connection: close', async () => {
    await ask(['HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n']);
    expect(connection.done).toBe(true);
  });

  it.each([
    ['before the answer', []],
    ['after 2 of 5 bytes', ['HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe']],
    ['inside a chunk', ['HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe']],
  ])('says that the answer was cut %s', async (where, given) => {
    await expect(ask(given, true)).rejects.toThrow(`FIN ${where}`);
  });
});
