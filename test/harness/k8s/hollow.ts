import { createHash } from 'node:crypto';
import type { KubernetesObject, V1ContainerStatus, V1Lease, V1Node, V1Pod } from '@kubernetes/client-node';
import type { Client } from './client.ts';
import type { Cluster } from './cluster.ts';

const LEASE_MS = 10_000;
/** Kubernetes' default: a node whose Lease is older than 40 s is lost. */
const LEASE_SECONDS = 40;
const WRITERS = 16;

/**
 * Nodes without containers, for fleets that no machine runs: the Pods bound to them are said to run, each container with the
 * image of its spec. A container whose image is changed is restarted (a new id, one restart more), a Pod that is deleted goes.
 * What the real kubelet does beyond that (hooks, probes, grace) is for tests on a real `Node`.
 */
export class HollowNodes {
  readonly names: readonly string[];
  private readonly client: Client;
  private readonly known = new Map<string, V1ContainerStatus[]>();
  /** Pods whose status is to be written, the newest state of each. */
  private readonly queue = new Map<string, V1Pod>();
  private readonly busy = new Set<string>();
  private readonly errors: Error[] = [];
  private unwatch: (() => void) | undefined;
  private timer: NodeJS.Timeout | undefined;
  private stopped = false;

  static async start(cluster: Cluster, names: readonly string[]): Promise<HollowNodes> {
    const nodes = new HollowNodes(cluster, names);
    for (const name of names) await nodes.register(name);
    nodes.timer = setInterval(() => {
      for (const name of names) nodes.lease(name).catch((error: Error) => nodes.errors.push(error));
    }, LEASE_MS);
    nodes.unwatch = nodes.client.events<V1Pod>('/api/v1/pods', ({ type, object }) => nodes.seen(type, object));
    return nodes;
  }

  private constructor(cluster: Cluster, names: readonly string[]) {
    this.client = cluster.client;
    this.names = names;
  }

  /** What could not be written; a Pod that was gone by then does not count. */
  get failures(): readonly Error[] {
    return this.errors;
  }

  stop(): void {
    this.stopped = true;
    clearInterval(this.timer);
    this.unwatch?.();
  }

  private async register(name: string): Promise<void> {
    const node = await this.client.apply<V1Node>({
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name, labels: { 'kubernetes.io/hostname': name } },
    });
    const now = new Date().toISOString();
    const resources = { cpu: '64', memory: '256Gi', pods: '10000' };
    const conditions = [
      { type: 'Ready', status: 'True', reason: 'Hollow', lastHeartbeatTime: now, lastTransitionTime: now },
    ];
    const status = { capacity: resources, allocatable: resources, conditions };
    await this.client.patch(node, { status }, { subresource: 'status' });
    await this.client.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'kube-node-lease' } });
    await this.lease(name);
  }

  private async lease(name: string): Promise<void> {
    // Server-side apply wants microseconds in a MicroTime.
    const renewTime = new Date().toISOString().replace('Z', '000Z');
    const lease: KubernetesObject & { spec: unknown } = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace: 'kube-node-lease' },
      spec: { holderIdentity: name, leaseDurationSeconds: LEASE_SECONDS, renewTime },
    };
    await this.client.apply<V1Lease>(lease as unknown as V1Lease);
  }

  private seen(type: string, pod: V1Pod): void {
    const { uid = '', deletionTimestamp } = pod.metadata ?? {};
    if (type === 'DELETED') {
      this.known.delete(uid);
      this.queue.delete(uid);
      return;
    }
    if (!this.names.includes(pod.spec?.nodeName ?? '')) return;
    if (deletionTimestamp === undefined && !this.changed(pod)) return;
    this.queue.set(uid, pod);
    this.work();
  }

  /** Whether the status that we wrote last is not what the spec asks for. */
  private changed(pod: V1Pod): boolean {
    const known = this.known.get(pod.metadata?.uid ?? '');
    if (known === undefined) return true;
    return (
      pod.spec?.containers.some(({ name, image }) => known.find((one) => one.name === name)?.image !== image) ?? false
    );
  }

  private work(): void {
    for (const [uid, pod] of this.queue) {
      if (this.busy.size >= WRITERS) return;
      if (this.busy.has(uid)) continue;
      this.queue.delete(uid);
      this.busy.add(uid);
      void this.write(uid, pod)
        .catch((error: Error & { code?: number }) => {
          if (error.code !== 404 && !this.stopped) this.errors.push(error);
        })
        .finally(() => {
          this.busy.delete(uid);
          this.work();
        });
    }
  }

  private async write(uid: string, pod: V1Pod): Promise<void> {
    if (pod.metadata?.deletionTimestamp !== undefined) return this.client.delete(pod, 0);
    const before = this.known.get(uid);
    const containerStatuses = (pod.spec?.containers ?? []).map(({ name, image = '' }) =>
      containerStatus(
        name,
        image,
        before?.find((one) => one.name === name),
      ),
    );
    this.known.set(uid, containerStatuses);
    const now = new Date().toISOString();
    const conditions = ['PodScheduled', 'Initialized', 'ContainersReady', 'Ready'].map((type) => ({
      type,
      status: 'True',
      lastTransitionTime: now,
      observedGeneration: pod.metadata?.generation,
    }));
    const generation = pod.metadata?.generation;
    const status = { phase: 'Running', startTime: now, conditions, containerStatuses, observedGeneration: generation };
    await this.client.patch(pod, { status }, { subresource: 'status' });
  }
}

/** A container's status: as it was when its image is the same. OpenKruise sees an update by a changed imageID. */
function containerStatus(name: string, image: string, before: V1ContainerStatus | undefined): V1ContainerStatus {
  if (before?.image === image) return before;
  const restartCount = before === undefined ? 0 : before.restartCount + 1;
  const digest = (text: string) => createHash('sha256').update(text).digest('hex');
  return {
    name,
    image,
    imageID: `${image.replace(/:[^/:]*$/, '')}@sha256:${digest(image)}`,
    containerID: `containerd://${digest(`${name} ${image} ${restartCount} ${Math.random()}`)}`,
    ready: true,
    started: true,
    restartCount,
    state: { running: { startedAt: new Date() } },
  };
}
