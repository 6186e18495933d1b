import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { currentVersions } from './sidecarset.ts';
import { containerName, findPlace } from './slot.ts';

const MOUNTS = [
  '3120 3088 0:215 / / ro,relatime master:1 - overlay overlay rw',
  '3131 3120 8:1 /var/lib/kubelet/pods/5f0a/volumes/kubernetes.io~empty-dir/sluice /etc/sluice/uds rw - ext4 /dev/sda1 rw',
  '3132 3120 8:1 /var/lib/kubelet/pods/5f0a/etc-hosts /etc/hosts rw - ext4 /dev/sda1 rw',
  '3133 3120 8:1 /var/lib/kubelet/pods/5f0a/containers/istio-proxy-2/0b3c9d1e /dev/termination-log rw - ext4 /dev/sda1 rw',
].join('\n');

test('a container reads its name out of the mounts that the kubelet made', () => {
  expect(containerName(MOUNTS)).toBe('istio-proxy-2');
  expect(containerName('22 1 8:1 / / rw - ext4 /dev/sda1 rw')).toBeUndefined();
});

test.each([
  ['the mounts', {}, MOUNTS, { slot: '2', container: 'istio-proxy-2' }],
  ['a given container', { SLUICE_CONTAINER: 'mesh-1' }, MOUNTS, { slot: '1', container: 'mesh-1' }],
  ['a given slot first', { SLUICE_SLOT: 'b', SLUICE_CONTAINER: 'mesh' }, '', { slot: 'b', container: 'mesh' }],
  ['no container at all', {}, '', { slot: '1' }],
])('the slot by %s', (_, env, mounts, place) => {
  expect(findPlace(env, () => mounts)).toEqual(place);
});

test('a container that is neither of the two is refused', () => {
  expect(() => findPlace({ SLUICE_CONTAINER: 'mesh' }, () => '')).toThrow(/NAME-1 or NAME-2/);
});

test('the version pair follows the annotations, and the variables where there are none', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-podinfo-'));
  const file = join(folder, 'annotations');
  const from = { file, container: 'mesh-2' };
  const env = { SIDECARSET_VERSION: '3', SIDECARSET_VERSION_ALT: '0' };
  expect(currentVersions(env, from)).toEqual({ own: 3, alt: 0 });
  const lines = ['version.sidecarset.kruise.io/mesh-1="5"', 'versionalt.sidecarset.kruise.io/mesh-2="5"', 'a="b=\\"c"'];
  writeFileSync(file, lines.join('\n'));
  expect(currentVersions(env, from)).toEqual({ own: 3, alt: 5 });
  expect(currentVersions({}, from)).toBeUndefined();
  writeFileSync(file, 'version.sidecarset.kruise.io/mesh-2="x"');
  expect(() => currentVersions(env, from)).toThrow(/version.sidecarset.kruise.io\/mesh-2/);
  rmSync(folder, { recursive: true });
});
