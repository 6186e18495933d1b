import type { V1Container, V1ContainerStatus, V1Pod } from '@kubernetes/client-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Cluster } from '../harness/k8s/cluster.ts';
import { missingNodePackages } from '../harness/k8s/debian.ts';
import { shell } from '../harness/k8s/images.ts';
import { Node } from '../harness/k8s/node.ts';
import { podReady } from '../harness/k8s/pods.ts';
import { missingTools } from '../harness/k8s/tools.ts';
import { type Block, claimBlock } from '../harness/ports.ts';

const missing =
  (await missingTools(['etcd', 'kube-apiserver', 'kube-controller-manager', 'kubelet', 'kubectl'])) ??
  missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

/** Serves its version, notes what happens to it in the Pod's volume, and leaves on SIGTERM. */
const SERVE =
  'echo "$NAME start $(cat /version)" >> /notes/log; trap "exit 0" TERM; mkdir -p /tmp/www; cp /version /tmp/www/version; ' +
  'httpd -p $PORT -h /tmp/www; while :; do sleep 1 & wait $!; done';

const SHELL = missing === undefined ? shell() : [];

function image(version: string) {
  const layers = [SHELL, [{ path: '/version', text: version }]];
  return { name: `sluice.test/app:${version}`, layers, entrypoint: ['/bin/sh', '-c', SERVE] };
}

let block: Block;
let cluster: Cluster;
let node: Node;
let second: Node;

beforeAll(async () => {
  if (missing !== undefined) return;
  block = await claimBlock();
  cluster = await Cluster.start(block, { nodes: ['node-1', 'node-2'] });
  const images = [image('one'), image('two')];
  node = await Node.start(cluster, { images });
  second = await Node.start(cluster, { name: 'node-2', images });
});

afterAll(async () => {
  await node?.stop();
  await second?.stop();
  await cluster?.stop();
  await block?.release();
});

const PODS = '/api/v1/namespaces/default/pods';

function container(name: string, port: number): V1Container {
  const note = (what: string) => ({
    exec: { command: ['sh', '-c', `echo "${name} ${what} $(cat /version)" >> /notes/log`] },
  });
  return {
    name,
    image: 'sluice.test/app:one',
    imagePullPolicy: 'Never',
    env: [
      { name: 'NAME', value: name },
      { name: 'PORT', value: String(port) },
    ],
    volumeMounts: [{ name: 'notes', mountPath: '/notes' }],
    lifecycle: { postStart: note('postStart'), preStop: note('preStop') },
    readinessProbe: { httpGet: { path: '/version', port }, periodSeconds: 1 },
    livenessProbe: { exec: { command: ['test', '-e', '/version'] }, periodSeconds: 1 },
  };
}

function status(pod: V1Pod, name: string): V1ContainerStatus | undefined {
  return pod.status?.containerStatuses?.find((one) => one.name === name);
}

it('an image changed in place restarts that container alone, with its hooks and probes', async () => {
  const { client } = cluster;
  const pod = await client.apply<V1Pod>({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'pair', namespace: 'default' },
    spec: {
      nodeName: node.name,
      terminationGracePeriodSeconds: 5,
      volumes: [{ name: 'notes', emptyDir: { medium: 'Memory' } }],
      containers: [container('proxy-1', 8081), container('proxy-2', 8082)],
    },
  });
  const before = await podReady(cluster, 'pair');
  const address = before.status?.podIP ?? '';
  const version = async (port: number) => (await fetch(`http://${address}:${port}/version`)).text();
  expect([await version(8081), await version(8082)]).toEqual(['one', 'one']);

  await client.patch(pod, { spec: { containers: [{ name: 'proxy-2', image: 'sluice.test/app:two' }] } });
  const after = await client.watch<V1Pod, V1Pod>(PODS, ({ object }) => {
    const two = status(object, 'proxy-2');
    return two?.image === 'sluice.test/app:two' && two.ready ? object : undefined;
  });
  expect([await version(8081), await version(8082)]).toEqual(['one', 'two']);
  expect(after.status?.podIP).toBe(address);
  expect(status(after, 'proxy-1')?.containerID).toBe(status(before, 'proxy-1')?.containerID);
  expect(status(after, 'proxy-2')?.restartCount).toBe(1);

  const log = await cluster.kubectl('exec', 'pair', '-c', 'proxy-1', '--', 'cat', '/notes/log');
  const of = (name: string) =>
    log
      .split('\n')
      .filter((line) => line.startsWith(name))
      .sort();
  expect(of('proxy-1')).toEqual(['proxy-1 postStart one', 'proxy-1 start one']);
  expect(of('proxy-2')).toEqual(
    ['postStart one', 'postStart two', 'preStop one', 'start one', 'start two'].map((line) => `proxy-2 ${line}`),
  );
});

it('the containers of a Pod share network and IPC, not PIDs and files', async () => {
  const read = (name: string) =>
    cluster.kubectl(
      'exec',
      'pair',
      '-c',
      name,
      '--',
      'sh',
      '-c',
      'for n in net ipc pid mnt; do readlink /proc/self/ns/$n; done',
    );
  const [one, two] = (await Promise.all([read('proxy-1'), read('proxy-2')])).map((text) => text.trim().split('\n'));
  expect(one?.map((namespace, i) => namespace === two?.[i])).toEqual([true, true, false, false]);
});

it('a Pod reaches the machine at the gateway, and its containers go on without their kubelet', async () => {
  await node.pauseKubelet();
  const pod = await podReady(cluster, 'pair');
  expect(await (await fetch(`http://${pod.status?.podIP}:8082/version`)).text()).toBe('two');
  await node.resumeKubelet();
  await cluster.client.delete(pod);
  await cluster.client.gone(pod);
});

it('Pods of two nodes reach each other', async () => {
  const { client } = cluster;
  const pods = [node, second].map(({ name }) => ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `on-${name}`, namespace: 'default' },
    spec: { nodeName: name, volumes: [{ name: 'notes', emptyDir: {} }], containers: [container('one', 8081)] },
  }));
  for (const pod of pods) await client.apply<V1Pod>(pod);
  const { status } = await podReady(cluster, 'on-node-2');
  await podReady(cluster, 'on-node-1');
  const get = ['wget', '-q', '-O', '-', `http://${status?.podIP}:8081/version`];
  expect(await cluster.kubectl('exec', 'on-node-1', '--', ...get)).toBe('one');
});
