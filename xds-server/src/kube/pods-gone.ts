import type { Driver } from '../drain/driver.ts';
import { nameOf } from './kube-fleet.ts';
import type { KubeView } from './kube-view.ts';
import { podOfProxy } from './words.ts';

/**
 * Ends the upgrades of Pods that are gone: nobody will ever tell of their old epochs again. Also of those that went while no
 * controller looked. Rejects never.
 */
export async function endWithPods(driver: Pick<Driver, 'active' | 'podGone'>, view: KubeView): Promise<void> {
  view.listen({
    hotUpgrade() {},
    drainPolicy() {},
    podGone: (pod) => void driver.podGone(nameOf(pod), (uid) => uid === pod.metadata?.uid),
  });
  await view.synced();
  for (const { proxy, podUid } of driver.active()) {
    const place = podOfProxy(proxy);
    if (podUid === undefined || place === undefined || !view.covers(place.namespace)) continue;
    const pod = view.pod(place.namespace, place.name);
    if (pod?.metadata?.uid !== podUid) await driver.podGone(proxy, (uid) => uid === podUid);
  }
}
