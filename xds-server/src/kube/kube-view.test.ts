import type { KubernetesObject } from '@kubernetes/client-node';
import { DEFAULT_POLICY } from '@sluice/contract';
import { expect, it } from 'vitest';
import { SILENT } from '../log.ts';
import type { Kind, KubeClient, WatchEvent } from './client.ts';
import { KubeView } from './kube-view.ts';

it('a DrainPolicy that is deleted under a HotUpgrade still holds for its drains, until there is another one', async () => {
  const metadata = (name: string) => ({ name, namespace: 'shop', uid: name });
  const slow = (maxDrainMs: number): KubernetesObject =>
    ({ metadata: metadata('slow'), spec: { maxDrainMs } }) as KubernetesObject;
  const selector = { matchLabels: { app: 'web' } };
  const lists: Record<string, readonly object[]> = {
    Pod: [{ metadata: { ...metadata('web-0'), labels: { app: 'web' } } }],
    HotUpgrade: [{ metadata: metadata('web'), spec: { selector, container: 'proxy', policy: { name: 'slow' } } }],
    DrainPolicy: [slow(7), { metadata: metadata('unused'), spec: {} }],
  };
  const tell: Record<string, (event: WatchEvent) => void> = {};
  const client = {
    list: async ({ kind }: Kind) => ({ items: lists[kind] ?? [], resourceVersion: '1' }),
    watch: ({ kind }: Kind, _: unknown, __: unknown, onEvent: (event: WatchEvent) => void, signal: AbortSignal) => {
      tell[kind] = onEvent;
      return new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    },
  } as unknown as KubeClient;
  const view = new KubeView(client, { standard: DEFAULT_POLICY, log: SILENT });
  const end = new AbortController();
  const done = view.run(end.signal);
  await view.synced();
  await Promise.resolve();
  const limit = () => view.policyOf('web-0.shop')?.maxDrainMs;
  expect(limit()).toBe(7);
  tell.DrainPolicy?.({ type: 'DELETED', object: slow(7) });
  expect(limit()).toBe(7);
  expect(view.drainPolicy('shop', 'slow')).toBeUndefined();
  tell.DrainPolicy?.({ type: 'ADDED', object: slow(9) });
  expect(limit()).toBe(9);
  end.abort();
  await done;
});
