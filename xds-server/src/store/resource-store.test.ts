import type { RecordEntry } from '@sluice/contract';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { untilThere } from '../drain/persist.ts';
import { KubeError } from '../kube/client.ts';
import { SILENT } from '../log.ts';
import { FakeKube } from '../testing/fake-kube.ts';
import { checkAgainstModel } from '../testing/store-model.ts';
import { STORE_CONFORMANCE, sampleUpgrade } from './conformance.ts';
import { PROXY_UPGRADES, StateApi } from './resource-api.ts';
import { chunksOf, putChunk } from './resource-chunks.ts';
import { pack } from './resource-payload.ts';
import { ResourceStore } from './resource-store.ts';
import type { AgentRow } from './store.ts';

function subject(kube = new FakeKube()) {
  const open = async () =>
    new ResourceStore({ client: kube.client, namespace: 'sluice-system', agentsMs: 0, endedMs: 0 });
  return { open, reopen: open, kube };
}

const entry = (seq: number): RecordEntry => ({
  ...{ upgradeId: 'a', proxy: 'edge', seq, at: seq },
  ...{ phase: 'Draining', event: 'phase', text: `entry ${seq}` },
});
const row: AgentRow = { proxy: 'web-1.shop', slot: '1', agentVersion: '1', versions: [], epochs: [], seenAt: 1 };

// The same on the real API server: test/k8s/store.test.ts.
describe('on an API server in memory', () => {
  it.each(STORE_CONFORMANCE.map((one) => [one.name, one] as const))('%s', async (_, one) => {
    await one.run(subject());
  });

  it('answers as MemoryStore, whatever is done', () => checkAgainstModel(async () => subject(), 100));
});

describe('with an API server whose answers are lost', () => {
  const troubles = fc.array(fc.constantFrom('before' as const, 'after' as const, undefined, undefined), {
    minLength: 1,
    maxLength: 40,
  });

  it('each step of an upgrade is written once, and none is lost', async () => {
    await fc.assert(
      fc.asyncProperty(troubles, fc.boolean(), async (list, restart) => {
        const { kube, open } = subject();
        let n = 0;
        kube.trouble = () => list[n++];
        const again = <T>(ask: () => Promise<T>) => untilQuick(ask);
        let store = await open();
        let { version } = await again(() => store.insertUpgrade(sampleUpgrade('a'), [entry(0)]));
        for (let seq = 1; seq < 6; seq++) {
          const state = sampleUpgrade('a', { reason: `step ${seq}`, attempts: seq });
          ({ version } = await again(() => store.updateUpgrade(state, version, [entry(seq)])));
          if (restart) store = await open();
        }
        expect((await again(() => store.upgrade('a')))?.state.attempts).toBe(5);
        expect(await again(() => store.record('a'))).toEqual([0, 1, 2, 3, 4, 5].map(entry));
      }),
      { numRuns: 300 },
    );
  });

  it('somebody else’s write is not taken for a lost one of ours', async () => {
    const { kube, open } = subject();
    const [one, other] = [await open(), await open()];
    const { version } = await one.insertUpgrade(sampleUpgrade('a'), []);
    const state = sampleUpgrade('a', { phase: 'Preflight' });
    kube.trouble = (verb) => (verb === 'update' ? 'before' : undefined);
    await expect(one.updateUpgrade(state, version, [entry(0)])).rejects.toMatchObject({ code: 'KUBE_AWAY' });
    kube.trouble = () => undefined;
    // The same step, by the replica that took the proxy over.
    await other.updateUpgrade(state, version, [entry(0)]);
    await expect(one.updateUpgrade(state, version, [entry(0)])).rejects.toMatchObject({ code: 'UPGRADE_CONFLICT' });
  });

  it('what agents say is written when the API server is back, and readiness tells of it meanwhile', async () => {
    const { kube, open } = subject();
    const store = await open();
    const away = Promise.withResolvers<void>();
    kube.trouble = () => {
      setTimeout(away.resolve, 1);
      return 'before';
    };
    const put = store.putAgent(row);
    await away.promise;
    await expect(store.ping()).rejects.toMatchObject({ code: 'KUBE_AWAY' });
    const again = store.putAgent({ ...row, agentVersion: '2' });
    kube.trouble = () => undefined;
    await Promise.all([put, again]);
    expect((await store.agents())[0]?.agentVersion).toBe('2');
    await store.ping();
    await store.close();
  });
});

describe('what is told of an agent while the word before is being written', () => {
  it.each([undefined, 'after'] as const)(
    'is written next, though it is what was stored before (answer: %s)',
    async (lost) => {
      const { kube, open } = subject();
      const store = await open();
      const linked = { ...row, replica: 'a' };
      await store.putAgent(linked);
      const again = Promise.withResolvers<void>();
      let n = 0;
      kube.trouble = (verb) => {
        if (verb !== 'update' || n++ > 0) return undefined;
        // The link is back before its end is written.
        store.putAgent({ ...linked, seenAt: 3 }).then(again.resolve, again.reject);
        return lost;
      };
      await Promise.all([store.putAgent({ ...row, seenAt: 2 }), again.promise]);
      const other = await open();
      expect((await other.agents())[0]?.replica).toBe('a');
      await store.close();
    },
  );
});

it('a replica that knows less of a record does not write over what another one put aside', async () => {
  const { kube } = subject();
  const api = new StateApi(kube.client, 'sluice-system');
  const chunk = (count: number) => ({ of: 'a', part: 'record' as const, from: 0, count, items: pack(count) });
  const put = (count: number) => putChunk(api, PROXY_UPGRADES, { name: 'a', uid: 'u' }, chunk(count), 'any');
  await put(2);
  await put(3);
  await put(2);
  expect((await chunksOf(api, 'u', 'record')).map(({ spec }) => spec.count)).toEqual([3]);
});

it('rights that an API server does not know yet are waited for: it starts, and refuses everybody', async () => {
  const { kube, open } = subject();
  const store = await open();
  const { version } = await store.insertUpgrade(sampleUpgrade('a'), []);
  const forbidden = () => Promise.reject(new KubeError(403, 'Forbidden', 'meshproxies is forbidden'));
  const { replace, list } = kube;
  Object.assign(kube, { replace: forbidden, list: forbidden });
  const written = store.updateUpgrade(sampleUpgrade('a', { phase: 'Done' }), version, []);
  await expect(written).rejects.toMatchObject({ code: 'KUBE_AWAY', hint: expect.stringContaining('deploy/rbac') });
  await expect(store.agents()).rejects.toMatchObject({ code: 'KUBE_AWAY' });
  Object.assign(kube, { replace, list });
  await store.updateUpgrade(sampleUpgrade('a', { phase: 'Done' }), version, []);
});

describe('a read while the API server is away', () => {
  it('says so, and does not wait for what can not be written', async () => {
    const { kube, open } = subject();
    const store = await open();
    await store.insertUpgrade(sampleUpgrade('a'), []);
    kube.trouble = () => 'before';
    const told = store.appendEnded('a', [], 1);
    await expect(store.ended('a')).rejects.toMatchObject({ code: 'KUBE_AWAY' });
    await expect(store.agents()).rejects.toMatchObject({ code: 'KUBE_AWAY' });
    kube.trouble = () => undefined;
    await told;
    expect((await store.ended('a')).dropped).toBe(1);
  });
});

describe('MeshProxy', () => {
  it('is written when something changed that counts, for both slots at once', async () => {
    const { open } = subject();
    const store = await open();
    await Promise.all([store.putAgent(row), store.putAgent({ ...row, slot: '2' })]);
    for (let n = 2; n < 50; n++) await store.putAgent({ ...row, seenAt: n });
    expect(store.calls['create meshproxies']).toBe(1);
    expect(store.calls['update meshproxies']).toBeUndefined();
    await store.putAgent({ ...row, versions: ['1.40.0'] });
    expect(store.calls['update meshproxies']).toBe(1);
  });

  it('of a Pod that was made anew under the same name the old one’s agents are forgotten', async () => {
    const { open } = subject();
    const store = await open();
    const of = (uid: string) => ({ labels: { 'sluice.dev/pod-uid': uid } });
    await Promise.all([store.putAgent({ ...row, ...of('one') }), store.putAgent({ ...row, slot: '2', ...of('one') })]);
    await store.putAgent({ ...row, ...of('two'), seenAt: 2 });
    expect((await store.agents()).map(({ slot, labels }) => [slot, labels])).toEqual([['1', of('two').labels]]);
  });

  it('an agent that went to another replica is that one’s: the end of its link here says nothing', async () => {
    const { open } = subject();
    const [one, other] = [await open(), await open()];
    await one.putAgent({ ...row, replica: 'one' });
    await other.putAgent({ ...row, replica: 'other', seenAt: 2 });
    await one.putAgent({ ...row, seenAt: 3 });
    expect((await one.agents()).map(({ replica }) => replica)).toEqual(['other']);
    await one.putAgent({ ...row, replica: 'one', seenAt: 4 });
    expect((await other.agents()).map(({ replica }) => replica)).toEqual(['one']);
    await one.putAgent({ ...row, seenAt: 5 });
    expect((await other.agents()).map(({ replica }) => replica)).toEqual([undefined]);
  });
});

describe('what can not be read', () => {
  it('is told by name, and does not hide the rest', async () => {
    const { kube, open } = subject();
    const store = await open();
    for (const id of ['a', 'b', 'c']) await store.insertUpgrade(sampleUpgrade(id), []);
    const change = (name: string, spec: object) => {
      const object = kube.objects.get(`proxyupgrades/${name}`) as { spec?: object };
      object.spec = { ...object.spec, ...spec };
    };
    change('a', { state: { json: '{' } });
    change('b', { format: 2 });
    expect((await store.upgrades()).map(({ state }) => state.id)).toEqual(['c']);
    await expect(store.upgrade('a')).rejects.toMatchObject({ code: 'STATE_INVALID' });
    await expect(store.upgrade('b')).rejects.toThrow('expected format 1 or older, found 2');
  });
});

/** As the driver waits for a store that is away, without its pauses. */
function untilQuick<T>(ask: () => Promise<T>): Promise<T> {
  const end = new AbortController();
  return untilThere(
    async () => {
      for (let n = 0; ; n++) {
        try {
          return await ask();
        } catch (error) {
          if (n > 60 || (error as { code?: string }).code !== 'KUBE_AWAY') throw error;
        }
      }
    },
    SILENT,
    end.signal,
  );
}
