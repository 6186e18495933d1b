import type { KubeClient } from './client.ts';
import { FINALIZER, HOT_UPGRADES, type HotUpgrade } from './hotupgrade.ts';

interface Parts {
  readonly client: Pick<KubeClient, 'patch'>;
  readonly signal: AbortSignal;
}

/** With our finalizer: it is there before the first Pod is touched. Rejects with KubeError. */
export async function withFinalizer(parts: Parts, hup: HotUpgrade): Promise<HotUpgrade> {
  const { finalizers = [], deletionTimestamp } = hup.metadata ?? {};
  if (deletionTimestamp !== undefined || finalizers.includes(FINALIZER)) return hup;
  return write(parts, hup, [...finalizers, FINALIZER]);
}

export async function withoutFinalizer(parts: Parts, hup: HotUpgrade): Promise<void> {
  const { finalizers = [] } = hup.metadata ?? {};
  if (!finalizers.includes(FINALIZER)) return;
  const others = finalizers.filter((one) => one !== FINALIZER);
  await write(parts, hup, others);
}

function write({ client, signal }: Parts, { metadata }: HotUpgrade, finalizers: readonly string[]) {
  const { namespace, name, resourceVersion } = metadata ?? {};
  // With the version that was seen: somebody else's finalizer is not lost.
  const change = { metadata: { resourceVersion, finalizers } };
  return client.patch<HotUpgrade>(HOT_UPGRADES, { namespace, name }, 'merge', change, signal);
}
