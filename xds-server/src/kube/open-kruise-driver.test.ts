import { describe, expect, it } from 'vitest';
import { A, B, EMPTY, FLEET, OURS, pod, SERVES, type Strategy, sidecarSet, WISH } from '../testing/kruise-story.ts';
import { KubeError } from './client.ts';
import type { SidecarSet } from './open-kruise.ts';
import { OpenKruiseProvider } from './open-kruise-driver.ts';

describe('OpenKruiseProvider', () => {
  const record = (set: SidecarSet | KubeError) => {
    const sent: unknown[][] = [];
    let stored = set;
    const get = async () => {
      if (stored instanceof KubeError) throw stored;
      return stored as never;
    };
    const patch = async (...args: unknown[]) => {
      sent.push(args.slice(0, 4));
      const { spec } = args[3] as { spec?: { updateStrategy?: Strategy; containers?: never } };
      if (spec?.updateStrategy !== undefined && !(stored instanceof KubeError)) {
        const { selector, ...rest } = spec.updateStrategy;
        const chosen = selector === null ? {} : { selector };
        stored = { ...stored, spec: { ...stored.spec, ...spec, updateStrategy: { ...rest, ...chosen } } } as SidecarSet;
      }
      return stored as never;
    };
    return { sent, provider: new OpenKruiseProvider({ get, patch }, 'sidecar') };
  };
  const OPTIONS = { begin: true, undo: false };

  it('says by name that there is no such set', async () => {
    // The second: a cluster without OpenKruise, whose API server answers `404 page not found`.
    for (const reason of ['NotFound', 'Unknown']) {
      const { provider } = record(new KubeError(404, reason, 'no such kind'));
      expect(await provider.prepare(FLEET)).toMatchObject({ type: 'refused', reason: 'NoSidecarSet' });
    }
  });

  it('prepares the set once, and gives a Pod its turn only when it may begin', async () => {
    const { sent, provider } = record(sidecarSet(A));
    for (let i = 0; i < 2; i++)
      expect(await provider.prepare(FLEET)).toEqual({ type: 'ready', image: B, emptyImage: EMPTY });
    expect(sent).toHaveLength(1);
    const one = pod({ images: [A, EMPTY] });
    expect(await provider.step(one, WISH, { '1': SERVES }, { ...OPTIONS, begin: false })).toMatchObject({
      type: 'wait',
    });
    expect(sent).toHaveLength(1);
    expect(await provider.step(one, WISH, { '1': SERVES }, OPTIONS)).toEqual({
      type: 'upgrade',
      change: { container: 'proxy-2', init: false, image: B },
      why: expect.stringContaining('its turn has come'),
    });
    expect(sent[1]?.slice(1, 3)).toEqual([{ namespace: 'shop', name: 'one' }, 'strategic']);
  });

  it('takes a failed one back in one patch: the image, and whom OpenKruise takes for the working one', async () => {
    const { sent, provider } = record(sidecarSet(B, OURS));
    const failed = pod({ images: [A, B], working: '2', turn: '4', stuck: 'proxy-2' });
    expect(await provider.step(failed, WISH, { '1': SERVES }, OPTIONS)).toMatchObject({ type: 'failed' });
    expect(await provider.step(failed, WISH, { '1': SERVES }, { ...OPTIONS, undo: true })).toMatchObject({
      type: 'undo',
    });
    expect(sent.map(([, , , patch]) => patch)).toEqual([
      {
        metadata: {
          uid: 'u',
          resourceVersion: '7',
          labels: { 'turn.sluice.dev/sidecar': null },
          annotations: {
            'kruise.io/sidecarset-working-hotupgrade-container': '{"logs":"logs-1","proxy":"proxy-1"}',
            'version.sidecarset.kruise.io/proxy-2': '0',
            'versionalt.sidecarset.kruise.io/proxy-1': '0',
          },
        },
        spec: { containers: [{ name: 'proxy-2', image: EMPTY }] },
      },
    ]);
  });
});
