import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import type { V1Node } from '@kubernetes/client-node';
import type { Block } from '../ports.ts';
import { type Child, until } from '../process.ts';
import { BOUND, startBound } from './bound.ts';
import type { Cluster } from './cluster.ts';
import { type ImageSpec, PAUSE_IMAGE, pauseImage, writeImages } from './images.ts';
import { toolPath } from './tools.ts';

const run = promisify(execFile);
const READY_MS = 60_000;
/** How many nodes of ours use a bridge, by its name. */
const bridgeUsers = new Map<string, number>();

export interface NodeOptions {
  /** A name that the cluster has a token for. Default `node-1`. */
  readonly name?: string;
  readonly images?: readonly ImageSpec[];
  /** Fields of the KubeletConfiguration that replace ours. */
  readonly kubelet?: Record<string, unknown>;
}

/**
 * A real node: kubelet, containerd and runc. They live in a PID and a mount namespace of their own, whose first process dies with
 * the test: so do all containers and mounts. Pods are on a bridge of the machine: the test reaches their addresses, and they
 * reach the test at `gateway`.
 */
export class Node {
  readonly name: string;
  readonly dir: string;
  /** Address of this machine as Pods see it. */
  readonly gateway: string;
  private readonly cluster: Cluster;
  private readonly holder: Child;
  private readonly bridge: string;
  private readonly cgroup: string;
  private readonly children: Child[] = [];
  private kubelet: Child | undefined;
  private kubeletArgs: string[] = [];
  private archives = 0;
  private onBridge = false;

  static async start(cluster: Cluster, options: NodeOptions = {}): Promise<Node> {
    const { block } = cluster;
    const name = options.name ?? 'node-1';
    const dir = path.join(block.dir, name);
    mkdirSync(dir);
    const node = new Node(cluster, name, dir, await namespaces(path.join(dir, 'containerd')));
    try {
      await node.startContainerd();
      await node.addImages(pauseImage(), ...(options.images ?? []));
      await node.startKubelet(block, options.kubelet ?? {});
    } catch (error) {
      await node.stop();
      throw error;
    }
    return node;
  }

  private constructor(cluster: Cluster, name: string, dir: string, holder: Child) {
    this.cluster = cluster;
    this.name = name;
    this.dir = dir;
    this.holder = holder;
    const { index } = cluster.block;
    this.bridge = `sluice${index}`;
    this.cgroup = `/sluice-${index}-${name}`;
    this.gateway = `10.88.${index}.1`;
  }

  /** Packs images and gives them to containerd. Pods that use them say `imagePullPolicy: Never`. */
  async addImages(...images: ImageSpec[]): Promise<void> {
    const file = path.join(this.dir, `images-${this.archives++}.tar`);
    await writeImages(images, file);
    await this.ctr('images', 'import', file);
    await rm(file);
  }

  /** Runs `ctr` of containerd in the namespace of Kubernetes. */
  async ctr(...args: string[]): Promise<string> {
    const { stdout } = await run('ctr', ['-a', this.socket, '-n', 'k8s.io', ...args], { timeout: 120_000 });
    return stdout;
  }

  /** The last lines that the kubelet wrote. */
  get said(): string {
    return this.kubelet?.tail ?? '';
  }

  /** Ends the kubelet at once; its containers go on. */
  async pauseKubelet(): Promise<void> {
    this.kubelet?.kill('SIGKILL');
    await this.kubelet?.ended;
  }

  async resumeKubelet(): Promise<void> {
    this.kubelet = await this.inside(toolPath('kubelet'), this.kubeletArgs, 'kubelet');
  }

  async stop(): Promise<void> {
    const containers = (await this.ctr('containers', 'ls', '-q').catch(() => '')).split('\n').filter((id) => id !== '');
    // The first process of the PID namespace takes all others with it, and is gone when they are; so are their mounts.
    const { first } = this;
    this.holder.kill('SIGKILL');
    await until('the end of the node', () => gone(first) || undefined, { limitMs: 30_000 }).catch(() => undefined);
    for (const child of [this.kubelet, ...this.children, this.holder]) await child?.ended;
    await this.freeBridge();
    removeCgroups(this.cgroup);
    for (const id of containers) removeCgroups(path.join('k8s.io', id));
  }

  private get socket(): string {
    return path.join(this.dir, 'containerd.sock');
  }

  private async startContainerd(): Promise<void> {
    await this.claimBridge();
    const cni = path.join(this.dir, 'cni');
    mkdirSync(cni);
    writeFileSync(path.join(cni, '10-sluice.conflist'), JSON.stringify(this.network()));
    const config = path.join(this.dir, 'containerd.toml');
    writeFileSync(config, this.containerdConfig(cni));
    this.children.push(
      await this.inside('/usr/bin/containerd', ['--config', config], 'containerd', /containerd successfully booted/),
    );
  }

  /** Nodes of one cluster share it, so that their Pods reach each other. It is the address of the kubelets too. */
  private async claimBridge(): Promise<void> {
    const users = bridgeUsers.get(this.bridge) ?? 0;
    bridgeUsers.set(this.bridge, users + 1);
    this.onBridge = true;
    if (users > 0) return;
    // Left by a run that was killed: its addresses are those of this block.
    await run('ip', ['link', 'del', this.bridge]).catch(() => undefined);
    await run('ip', ['link', 'add', this.bridge, 'type', 'bridge']);
    await run('ip', ['addr', 'add', `${this.gateway}/24`, 'dev', this.bridge]);
    await run('ip', ['link', 'set', this.bridge, 'up']);
  }

  private async freeBridge(): Promise<void> {
    if (!this.onBridge) return;
    this.onBridge = false;
    const users = (bridgeUsers.get(this.bridge) ?? 1) - 1;
    bridgeUsers.set(this.bridge, users);
    if (users === 0) await run('ip', ['link', 'del', this.bridge]).catch(() => undefined);
  }

  private network(): object {
    const subnet = this.gateway.replace(/\.1$/, '.0/24');
    const ipam = {
      type: 'host-local',
      dataDir: path.join(this.cluster.dir, 'ipam'),
      ranges: [[{ subnet }]],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    return {
      cniVersion: '0.4.0',
      name: this.bridge,
      plugins: [{ type: 'bridge', bridge: this.bridge, isGateway: true, ipMasq: false, hairpinMode: true, ipam }],
    };
  }

  private containerdConfig(cni: string): string {
    const text = (value: string) => JSON.stringify(value);
    return `
version = 2
root = ${text(path.join(this.dir, 'containerd'))}
state = ${text(path.join(this.dir, 'run'))}
[grpc]
  address = ${text(this.socket)}
[plugins."io.containerd.internal.v1.opt"]
  path = ${text(path.join(this.dir, 'opt'))}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = ${text(PAUSE_IMAGE)}
  # The score of a sandbox is -998: to lower it needs CAP_SYS_RESOURCE, which a build machine may lack, and without it runc says
  # no more than "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = ${text(cni)}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`;
  }

  private async startKubelet(block: Block, overrides: Record<string, unknown>): Promise<void> {
    const config = path.join(this.dir, 'kubelet.json');
    const resolv = path.join(this.dir, 'resolv.conf');
    writeFileSync(resolv, `nameserver ${this.gateway}\n`);
    writeFileSync(
      config,
      JSON.stringify({
        apiVersion: 'kubelet.config.k8s.io/v1beta1',
        kind: 'KubeletConfiguration',
        address: this.gateway,
        port: await block.port(),
        healthzPort: await block.port(),
        authentication: {
          anonymous: { enabled: false },
          webhook: { enabled: false },
          x509: { clientCAFile: this.cluster.kubeletClientFile },
        },
        authorization: { mode: 'AlwaysAllow' },
        containerRuntimeEndpoint: `unix://${this.socket}`,
        // The cgroups are taken as they are: of either version, without the controllers that a real node has.
        failCgroupV1: false,
        cgroupDriver: 'cgroupfs',
        cgroupsPerQOS: false,
        cgroupRoot: this.cgroup,
        enforceNodeAllocatable: [],
        localStorageCapacityIsolation: false,
        failSwapOn: false,
        oomScoreAdj: 0,
        makeIPTablesUtilChains: false,
        registerWithTaints: [],
        // Nobody answers there unless a test does: Pods are told addresses, not names.
        clusterDNS: [this.gateway],
        clusterDomain: 'cluster.local',
        resolvConf: resolv,
        podLogsDir: path.join(this.dir, 'logs'),
        evictionHard: { 'memory.available': '0%', 'nodefs.available': '0%', 'imagefs.available': '0%' },
        imageGCHighThresholdPercent: 100,
        serializeImagePulls: false,
        ...overrides,
      }),
    );
    this.kubeletArgs = [
      `--config=${config}`,
      `--kubeconfig=${this.cluster.kubeconfig(`node:${this.name}`)}`,
      `--hostname-override=${this.name}`,
      `--node-ip=${this.gateway}`,
      `--root-dir=${path.join(this.dir, 'kubelet')}`,
      `--cert-dir=${path.join(this.dir, 'pki')}`,
      '--v=2',
    ];
    await this.resumeKubelet();
    const kubelet = this.kubelet;
    const died = kubelet?.ended.then(() => {
      throw new Error(`the kubelet ended; it said last:\n${kubelet.tail.slice(-3_000)}`);
    });
    const ready = this.cluster.client.watch<V1Node, true>(
      '/api/v1/nodes',
      ({ object }) =>
        object.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') || undefined,
      { limitMs: READY_MS, fieldSelector: `metadata.name=${this.name}` },
    );
    await Promise.race([ready, died]);
    died?.catch(() => undefined);
  }

  private inside(command: string, args: string[], name: string, ready?: RegExp): Promise<Child> {
    // `nsenter` stays outside as its parent: the signal that follows its death ends what it started.
    const enter = ['-t', String(this.first), '-m', '-p', '--', ...BOUND, command, ...args];
    const env = { ...process.env, PATH: `/usr/sbin:/usr/bin:/sbin:/bin` };
    const options = { name, log: path.join(this.dir, `${name}.log`), env };
    return startBound('nsenter', enter, ready === undefined ? options : { ...options, ready });
  }

  private get first(): number {
    return firstProcess(this.holder) ?? this.holder.pid;
  }
}

/** Folders of the machine whose names are fixed in containerd, CNI and the kubelet: a node has its own. */
const OWN_FOLDERS = ['/run/containerd', '/run/netns', '/var/lib/cni', '/var/lib/kubelet', '/var/log/containers'];

/**
 * The process that holds the namespaces: a shell, because it also waits for orphans.
 * @param storage images are unpacked there: in memory, because nothing of them outlives the test
 */
async function namespaces(storage: string): Promise<Child> {
  const own = [storage, ...OWN_FOLDERS].map((folder) => `mkdir -p ${folder} && mount -t tmpfs node ${folder}`);
  const wait = 'while :; do sleep 3600 & wait $!; done';
  const script = [...own, 'mount --make-rshared /', 'echo ready', wait].join(' && ');
  const isolate = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script];
  const holder = await startBound('unshare', isolate, { name: 'node', ready: /^ready$/ });
  await until('the first process of the node', () => firstProcess(holder));
  return holder;
}

/** `unshare` forks: the namespace's first process is its child. */
function firstProcess(holder: Child): number | undefined {
  if (!holder.running) return undefined;
  const children = readFileSync(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8').trim();
  return children === '' ? undefined : Number(children.split(' ')[0]);
}

function gone(pid: number): boolean {
  try {
    // The state stands after the name, which is in brackets. A zombie has ended, whoever is to wait for it.
    return /\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return true;
  }
}

/** Empty ones only: a cgroup with a process in it can not be removed. */
function removeCgroups(name: string): void {
  const remove = (dir: string) => {
    try {
      for (const entry of readdirSync(dir, { withFileTypes: true })) {
        if (entry.isDirectory()) remove(path.join(dir, entry.name));
      }
      rmdirSync(dir);
    } catch {
      // Not there, or still in use.
    }
  };
  for (const controller of ['', ...readdirSync('/sys/fs/cgroup')])
    remove(path.join('/sys/fs/cgroup', controller, name));
}
