import type { KubernetesObject } from '@kubernetes/client-node';
import { expect, it } from 'vitest';
import { Backoff } from './backoff.ts';
import { type KubeClient, KubeError, PODS, type WatchEvent } from './client.ts';
import { Informer } from './informer.ts';

const pod = (name: string, version: number, uid = name): KubernetesObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { namespace: 'default', name, uid, resourceVersion: String(version) },
});

/** Runs an informer through answers of an API server, in this order, and notes what it asked and what it told. */
async function run(
  answers: readonly (readonly KubernetesObject[] | readonly WatchEvent[] | Error)[],
): Promise<string[]> {
  const log: string[] = [];
  const end = new AbortController();
  let turn = 0;
  const answer = () => {
    const next = answers[turn++];
    if (next === undefined) end.abort();
    if (next === undefined || next instanceof Error) throw next ?? new Error('over');
    return next;
  };
  const client = {
    async list() {
      log.push('list');
      return { items: answer(), resourceVersion: '10' };
    },
    async watch(
      _: unknown,
      __: unknown,
      { resourceVersion }: { resourceVersion: string },
      onEvent: (event: WatchEvent) => void,
    ) {
      log.push(`watch ${resourceVersion}`);
      for (const event of answer() as readonly WatchEvent[]) onEvent(event);
    },
  } as unknown as KubeClient;
  const handler = {
    changed: (one: KubernetesObject, old?: KubernetesObject) =>
      log.push(`${old === undefined ? 'new' : 'changed'} ${one.metadata?.uid}`),
    gone: (one: KubernetesObject) => log.push(`gone ${one.metadata?.uid}`),
  };
  await new Informer(client, PODS, handler, { backoff: new Backoff(1, 2) }).run(end.signal);
  return log;
}

it('lists, then watches on from the last version seen, bookmarks too', async () => {
  expect(
    await run([
      [pod('a', 5)],
      [
        { type: 'ADDED', object: pod('b', 11) },
        { type: 'MODIFIED', object: pod('a', 12) },
        { type: 'BOOKMARK', object: { metadata: { resourceVersion: '20' } } },
      ],
      [{ type: 'DELETED', object: pod('a', 21) }],
    ]),
  ).toEqual(['list', 'new a', 'watch 10', 'new b', 'changed a', 'watch 20', 'gone a', 'watch 21']);
});

it('goes on from where it was when the API server was away, and lists again when that is too old', async () => {
  expect(
    await run([
      [pod('a', 5), pod('b', 6)],
      new Error('away'),
      new KubeError(410, 'Expired', 'too old resource version'),
      new Error('away'),
      [pod('b', 30), pod('c', 31)],
      [],
    ]),
  ).toEqual([
    'list',
    'new a',
    'new b',
    'watch 10',
    'watch 10',
    'list',
    'list',
    'changed b',
    'new c',
    'gone a',
    'watch 10',
    'watch 10',
  ]);
});

it('one that was deleted and made again under its name is two', async () => {
  expect(await run([[pod('a', 5, 'first')], new KubeError(410, 'Expired', 'old'), [pod('a', 20, 'second')]])).toEqual([
    'list',
    'new first',
    'watch 10',
    'list',
    'gone first',
    'new second',
    'watch 10',
  ]);
});
