import { execFile } from 'node:child_process';
import dgram from 'node:dgram';
import net from 'node:net';
import { promisify } from 'node:util';
import type { V1EndpointSliceList, V1ServiceList } from '@kubernetes/client-node';
import type { Cluster } from '../k8s/cluster.ts';
import type { Node } from '../k8s/node.ts';

const run = promisify(execFile);

interface Target {
  readonly host: string;
  readonly port: number;
}

/**
 * What kube-proxy and the cluster's DNS are, for the Pods of one node and for the API server's calls of webhooks: each address of
 * a Service leads to a ready Pod of it, `kubernetes` to the API server, which listens on loopback only.
 */
export class Services {
  private readonly cluster: Cluster;
  private readonly gateway: string;
  private readonly rules: string[][] = [];
  private readonly relays: net.Server[] = [];
  private readonly sockets = new Set<net.Socket>();
  private readonly dns = dgram.createSocket('udp4');

  static async start(cluster: Cluster, node: Node): Promise<Services> {
    const services = new Services(cluster, node);
    await services.forget();
    await services.open('default', 'kubernetes');
    await services.answerNames();
    return services;
  }

  private constructor(cluster: Cluster, { gateway }: Node) {
    this.cluster = cluster;
    this.gateway = gateway;
  }

  /** Makes a Service that exists reachable at its address, from Pods and from this machine. */
  async open(namespace: string, name: string): Promise<void> {
    const { spec } = await this.cluster.client.core.readNamespacedService({ namespace, name });
    for (const { port, name: of } of spec?.ports ?? []) {
      const at = await this.relay(() => this.target(namespace, name, of));
      for (const chain of [['PREROUTING', '-s', this.gateway.replace(/\.1$/, '.0/24')], ['OUTPUT']]) {
        const match = ['-d', spec?.clusterIP ?? '', '-p', 'tcp', '--dport', String(port)];
        const rule = [...chain, ...match, '-j', 'DNAT', '--to-destination', at];
        await run('iptables', ['-w', '5', '-t', 'nat', '-I', ...rule]);
        this.rules.push(rule);
      }
    }
  }

  /** Rules that a killed run of this block has left. */
  private async forget(): Promise<void> {
    const { stdout } = await run('iptables', ['-w', '5', '-t', 'nat', '-S']);
    const left = stdout.split('\n').filter((rule) => rule.includes(`--to-destination ${this.gateway}:`));
    for (const rule of left) await run('iptables', ['-w', '5', '-t', 'nat', ...rule.replace('-A', '-D').split(' ')]);
  }

  async stop(): Promise<void> {
    for (const rule of this.rules) await run('iptables', ['-w', '5', '-t', 'nat', '-D', ...rule]);
    for (const socket of this.sockets) socket.destroy();
    this.dns.close();
    for (const relay of this.relays) await new Promise((resolve) => relay.close(resolve));
  }

  private async target(namespace: string, name: string, port: string | undefined): Promise<Target | undefined> {
    const api = new URL(this.cluster.url);
    if (name === 'kubernetes') return { host: api.hostname, port: Number(api.port) };
    const path = `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`;
    const query = `labelSelector=kubernetes.io/service-name%3D${name}`;
    const { items } = await this.cluster.client.json<V1EndpointSliceList>('GET', `${path}?${query}`);
    const ready = items.flatMap(({ endpoints, ports }) =>
      (endpoints ?? [])
        .filter(({ conditions }) => conditions?.ready)
        .flatMap(({ addresses }) =>
          addresses.map((host) => ({ host, port: ports?.find((one) => one.name === port)?.port ?? 0 })),
        ),
    );
    return ready[Math.floor(Math.random() * ready.length)];
  }

  /** Resolves with HOST:PORT of a server that passes each connection on. */
  private async relay(find: () => Promise<Target | undefined>): Promise<string> {
    const server = net.createServer({ pauseOnConnect: true }, async (from) => {
      this.keep(from);
      const target = await find().catch(() => undefined);
      if (target === undefined) return from.destroy();
      const to = net.connect(target.port, target.host);
      this.keep(to);
      from.once('close', () => to.destroy());
      to.once('close', () => from.destroy());
      return from.pipe(to).pipe(from);
    });
    this.relays.push(server);
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, this.gateway, resolve));
    return `${this.gateway}:${(server.address() as net.AddressInfo).port}`;
  }

  private keep(socket: net.Socket): void {
    this.sockets.add(socket);
    socket.on('error', () => socket.destroy()).once('close', () => this.sockets.delete(socket));
  }

  /** SERVICE.NAMESPACE, with or without `.svc.cluster.local`, as A; nothing else has a name. RFC 1035, 4. */
  private async answerNames(): Promise<void> {
    this.dns.on('message', async (query, { port, address }) => {
      const end = query.indexOf(0, 12) + 5;
      const labels: string[] = [];
      for (let at = 12; query[at] !== 0; at += 1 + query[at]!)
        labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!));
      const ip = await this.addressOf(labels.join('.')).catch(() => undefined);
      const isA = query.readUInt16BE(end - 4) === 1;
      const answer = ip !== undefined && isA;
      const header = Buffer.from(query.subarray(0, 12));
      // A response, recursion available; NXDOMAIN for what is no Service.
      header.writeUInt16BE(0x8580 | (ip === undefined ? 3 : 0), 2);
      header.writeUInt16BE(1, 4);
      header.writeUInt16BE(answer ? 1 : 0, 6);
      header.writeUInt32BE(0, 8);
      const record = answer
        ? Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, ...ip.split('.').map(Number)])
        : Buffer.alloc(0);
      this.dns.send(Buffer.concat([header, query.subarray(12, end), record]), port, address);
    });
    await new Promise<void>((resolve, reject) => this.dns.once('error', reject).bind(53, this.gateway, resolve));
  }

  private async addressOf(name: string): Promise<string | undefined> {
    const [, service, namespace] = /^([^.]+)\.([^.]+)(?:\.svc(?:\.cluster\.local)?)?$/.exec(name) ?? [];
    if (service === undefined || namespace === undefined) return undefined;
    const { items } = await this.cluster.client.json<V1ServiceList>('GET', `/api/v1/namespaces/${namespace}/services`);
    return items.find(({ metadata }) => metadata?.name === service)?.spec?.clusterIP;
  }
}
