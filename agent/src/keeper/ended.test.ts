import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AgentMessage, EndedConnection } from '@sluice/contract';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Epoch } from '../epochs/epoch.ts';
import type { KeeperContext } from './context.ts';
import { EndedOutbox } from './ended.ts';

const end = (id: string) => ({ connection: { id }, at: 1, how: 'left' }) as EndedConnection;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ended-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function outbox() {
  const sent: Extract<AgentMessage, { type: 'ended' }>[] = [];
  const send = (message: AgentMessage) => void (message.type === 'ended' && sent.push(message));
  const context = { send, log: () => {} } as unknown as KeeperContext;
  const old = { number: 1, folder: { path: folder }, meta: { oldConnections: 9 } } as unknown as Epoch;
  return { sent, box: new EndedOutbox(context, old, 'u') };
}
const ids = (items: readonly EndedConnection[]) => items.map((one) => one.connection.id);

it('tells again what an earlier agent kept, and a torn line swallows none', () => {
  const first = outbox();
  expect(first.box.begun()).toEqual({ open: 9, items: [] });
  first.box.add([end('1'), end('2')], 0);
  first.box.flush();
  appendFileSync(join(folder, 'ended.ndjson'), '{"torn":');
  const second = outbox();
  expect(ids(second.box.begun().items)).toEqual(['1', '2']);
  expect(second.sent.map((m) => ids(m.items))).toEqual([['1', '2']]);
  second.box.add([end('3')], 0);
  second.box.flush();
  expect(outbox().box.begun().items).toHaveLength(3);
  expect(readFileSync(join(folder, 'ended.ndjson'), 'utf8').split('\n')).toHaveLength(4);
});

it('tells how many more there were although none of them is kept', () => {
  const { box, sent } = outbox();
  box.add([end('1')], 0);
  box.flush();
  box.add([], 5);
  box.flush();
  box.flush();
  expect(sent.map(({ items, dropped }) => [items.length, dropped])).toEqual([
    [1, 0],
    [0, 5],
  ]);
});
