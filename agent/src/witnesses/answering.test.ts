import type { Connection } from '@sluice/contract';
import { expect, it } from 'vitest';
import { withAnswering } from './answering.ts';
import type { KernelSocket } from './kernel.ts';

const row = (id: string, peer: string): Connection => ({
  epoch: 1,
  id,
  peer,
  local: '10.0.0.1:80',
  listener: 'in',
  protocol: 'http1',
  openedAt: 0,
});
const socket = (peer: string, unsent: boolean): KernelSocket => ({ inode: 1, local: '10.0.0.9:15006', peer, unsent });
const answering = (rows: readonly Connection[], sockets: readonly KernelSocket[]) =>
  withAnswering(rows, sockets).flatMap((one) => (one.answering ? [one.id] : []));

it('finds the connection by its client, also one over IPv4 to a listener of IPv6', () => {
  const rows = [row('1', '10.0.0.2:40000'), row('2', '10.0.0.3:40000'), row('3', '[fd00::1]:40000')];
  const sockets = [
    socket('[::ffff:a00:2]:40000', true),
    socket('10.0.0.3:40000', false),
    socket('[fd00::1]:40000', true),
  ];
  expect(answering(rows, sockets)).toEqual(['1', '3']);
  expect(answering(rows, [socket('10.0.0.3:40000', false)])).toEqual([]);
});

it('one that nobody claims may be that of each connection whose client the kernel does not know', () => {
  // By PROXY protocol Envoy was told of 192.0.2.1, the kernel sees the load balancer.
  const rows = [row('1', '192.0.2.1:5'), row('2', '10.0.0.3:40000')];
  const sockets = [socket('10.0.0.7:41000', true), socket('10.0.0.3:40000', false)];
  expect(answering(rows, sockets)).toEqual(['1']);
  expect(answering(rows, [socket('10.0.0.7:41000', false), socket('10.0.0.3:40000', true)])).toEqual(['2']);
});
