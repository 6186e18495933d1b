import { expect, it } from 'vitest';
import { fill, resolveSpec } from './spec.ts';

const listen = { HTTP: '0:0:0:0:0:0:0:1' };

it('fills in what is left out, and spells addresses in one way', () => {
  expect(resolveSpec({ args: ['-f'], listen: { HTTP: '[0:0::1]:80', B_2: '10.0.0.1:81' } })).toEqual({
    args: ['-f'],
    listen: { HTTP: '[::1]:80', B_2: '10.0.0.1:81' },
    env: {},
    ready: 'notify',
    stopSignal: 'SIGUSR1',
    endSignal: 'SIGTERM',
  });
});

it.each([
  [undefined, 'command: expected an object'],
  [{ listen: { HTTP: '127.0.0.1:1' } }, 'command.args: expected a list of texts'],
  [{ args: [1], listen: {} }, 'command.args: expected a list of texts'],
  [{ args: [], listen: {} }, 'command.listen: expected a listen socket at least'],
  [{ args: [], listen: { http: '127.0.0.1:1' } }, 'command.listen: expected names of capital letters'],
  [{ args: [], listen }, 'expected IP:PORT'],
  [{ args: [], listen: { HTTP: 'localhost:80' } }, 'expected IP:PORT'],
  [{ args: [], listen: { HTTP: '127.0.0.1:1' }, ready: 'soon' }, 'command.ready: expected "notify"'],
  [{ args: [], listen: { HTTP: '127.0.0.1:1' }, stopSignal: 'USR1' }, 'command.stopSignal: expected a signal'],
  [{ args: [], listen: { HTTP: '127.0.0.1:1' }, env: { A: 1 } }, 'command.env: expected texts by name'],
  [{ args: [], listen: { HTTP: '127.0.0.1:1' }, stop: 1 }, 'command.stop: expected one of args'],
])('%j is refused by its field', (given, error) => {
  expect(() => resolveSpec(given)).toThrow(error);
});

it('replaces its own words in arguments and leaves others alone', () => {
  const word = (name: string) => `$\{${name}}`;
  const args = [word('BINARY'), `-f=${word('CONFIG')}`, word('HOME'), `${word('DIR')}/x`];
  const words = { BINARY: '/b', CONFIG: '/c d', DIR: '/e' };
  expect(fill(args, words)).toEqual(['/b', '-f=/c d', word('HOME'), '/e/x']);
});
