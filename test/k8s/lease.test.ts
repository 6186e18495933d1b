import path from 'node:path';
import { KubeClient, LEASES, PODS } from '@sluice/xds-server/kube/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';
import { type Child, start, until } from '../harness/process.ts';

const missing = await missingTools(['etcd', 'kube-apiserver']);
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

let block: Block;
let cluster: Cluster;
const candidates = new Map<string, Child>();
const heard: { who: string; what: string; fence: number }[] = [];

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { controllerManager: false });
  const kubeconfig = cluster.kubeconfig();
  const main = path.join(import.meta.dirname, 'candidate-main.ts');
  for (const who of ['a', 'b', 'c']) {
    const args = ['--conditions=sluice-source', main, kubeconfig, 'default', who];
    const onLine = (line: string) => {
      const [what = '', fence] = line.split(' ');
      if (fence !== undefined && /^(leads|over)$/.test(what)) heard.push({ who, what, fence: Number(fence) });
    };
    candidates.set(who, await start(process.execPath, args, { name: who, ready: /ready/, onLine }));
  }
});

afterAll(async () => {
  for (const child of candidates.values()) {
    child.kill('SIGCONT');
    await child.stop();
  }
  await cluster?.stop();
  await block?.release();
});

/** Resolves when somebody leads in a later term than that. */
function leader(after = 0): Promise<{ who: string; fence: number }> {
  return until('a leader', async () => heard.find(({ what, fence }) => what === 'leads' && fence > after), {
    limitMs: 20_000,
    everyMs: 50,
  });
}

it('of three candidates one leads; stopped, killed or ended it is followed by another in a later term', async () => {
  const first = await leader();
  candidates.get(first.who)?.kill('SIGSTOP');
  const second = await leader(first.fence);
  expect(second).toMatchObject({ fence: first.fence + 1 });
  expect(second.who).not.toBe(first.who);

  // The one that stood still for longer than its term knows it as soon as it runs again.
  candidates.get(first.who)?.kill('SIGCONT');
  const over = ({ who, what, fence }: (typeof heard)[number]) =>
    who === first.who && what === 'over' && fence === first.fence;
  await until('the end of its term', async () => heard.find(over), { limitMs: 20_000, everyMs: 50 });

  candidates.get(second.who)?.kill('SIGKILL');
  const third = await leader(second.fence);
  expect(third.fence).toBe(second.fence + 1);

  candidates.get(third.who)?.kill('SIGTERM');
  const last = await leader(third.fence);
  expect(new Set([second.who, third.who, last.who]).size).toBe(3);
  expect(heard.filter(({ what }) => what === 'leads').map(({ fence }) => fence)).toEqual(
    [0, 1, 2, 3].map((n) => first.fence + n),
  );
});

it('the leader leads no more when the API server is away for longer than its term, and leads again after', async () => {
  const { who, fence } = heard.filter(({ what }) => what === 'leads').at(-1) ?? { who: '', fence: 0 };
  await cluster.pause();
  await until('the end of its term', async () => heard.find((one) => one.what === 'over' && one.fence === fence), {
    limitMs: 20_000,
    everyMs: 50,
  });
  const before = heard.length;
  await cluster.resume();
  const again = await until('a leader', async () => heard.slice(before).find(({ what }) => what === 'leads'), {
    limitMs: 20_000,
    everyMs: 50,
  });
  // Nobody else is left, and nobody else led: it is the same term.
  expect(again).toEqual({ who, what: 'leads', fence });
});

it('Leases are not kept waiting by other calls', async () => {
  const kube = new KubeClient(cluster.kubeConfig);
  const end = new AbortController();
  const { resourceVersion } = await kube.list(PODS, {});
  // More than there are connections, each of which a watch holds.
  const watch = () => kube.watch(PODS, {}, { resourceVersion, timeoutSeconds: 60 }, () => undefined, end.signal);
  const watches = Array.from({ length: 150 }, () => watch().catch(() => undefined));
  try {
    await expect(kube.list(PODS, {}, {}, AbortSignal.timeout(500))).rejects.toThrow();
    const { items } = await kube.list(LEASES, { namespace: 'default' }, {}, AbortSignal.timeout(10_000));
    expect(items).toHaveLength(1);
  } finally {
    end.abort();
    await Promise.all(watches);
  }
});
