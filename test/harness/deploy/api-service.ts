import { execFile } from 'node:child_process';
import net from 'node:net';
import { promisify } from 'node:util';
import type { Cluster } from '../k8s/cluster.ts';
import type { Node } from '../k8s/node.ts';

const run = promisify(execFile);

/**
 * Pods reach the API server where they are told it is, at the Service `kubernetes`: as kube-proxy would do it, by one rule of the
 * machine for the Pods of that node. The API server itself listens on loopback only, so the way ends at a relay.
 */
export async function apiService(cluster: Cluster, node: Node): Promise<{ stop(): Promise<void> }> {
  const { clusterIP = '' } =
    (await cluster.client.core.readNamespacedService({ namespace: 'default', name: 'kubernetes' })).spec ?? {};
  const { hostname, port } = new URL(cluster.url);
  const sockets = new Set<net.Socket>();
  const relay = net.createServer((from) => {
    const to = net.connect(Number(port), hostname);
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy()).once('close', () => sockets.delete(one));
      one.pipe(other);
    }
  });
  await new Promise<void>((resolve, reject) => relay.once('error', reject).listen(0, node.gateway, resolve));
  const at = `${node.gateway}:${(relay.address() as net.AddressInfo).port}`;
  const pods = node.gateway.replace(/\.1$/, '.0/24');
  const rule = [
    'PREROUTING',
    '-s',
    pods,
    '-d',
    clusterIP,
    '-p',
    'tcp',
    '--dport',
    '443',
    '-j',
    'DNAT',
    '--to-destination',
    at,
  ];
  // Before one that a killed run has left.
  await run('iptables', ['-w', '5', '-t', 'nat', '-I', ...rule]);
  return {
    async stop() {
      await run('iptables', ['-w', '5', '-t', 'nat', '-D', ...rule]);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => relay.close(resolve));
    },
  };
}
