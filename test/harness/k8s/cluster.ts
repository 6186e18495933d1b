import { execFile } from 'node:child_process';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { KubeConfig } from '@kubernetes/client-node';
import { selfSigned } from '../certificate.ts';
import type { Block } from '../ports.ts';
import { type Child, until } from '../process.ts';
import { startBound } from './bound.ts';
import { Client } from './client.ts';
import { toolPath } from './tools.ts';

const ISSUER = 'https://kubernetes.default.svc';
const READY_MS = 60_000;

/** Who speaks with the API server: a token each. The names and groups are those that Kubernetes' own RBAC rules know. */
const USERS = {
  admin: { user: 'admin', groups: ['system:masters'] },
  'controller-manager': { user: 'system:kube-controller-manager', groups: [] },
} as const;

export interface ClusterOptions {
  /** Also run kube-controller-manager: Deployments, ServiceAccounts, garbage collection, Pods of lost nodes. Default true. */
  readonly controllerManager?: boolean;
  /** Names of nodes whose kubelet is to have a token. Default `node-1`. */
  readonly nodes?: readonly string[];
  /** Written to stderr of etcd and of the servers into this folder, one file each. Default: the cluster's own folder. */
  readonly logs?: string;
  /** Name of a user whose requests the API server writes down, for `audited`. */
  readonly audit?: string;
}

/** A real API server with its etcd and, if wanted, its controllers, on loopback ports of a block; everything dies with us. */
export class Cluster {
  readonly url: string;
  readonly dir: string;
  readonly kubeConfig: KubeConfig;
  readonly client: Client;
  readonly block: Block;
  private readonly tokens: Readonly<Record<string, string>>;
  private readonly children: Child[] = [];
  private readonly startApi: () => Promise<Child>;
  private readonly controllers: boolean;
  private api: Child | undefined;

  static async start(block: Block, options: ClusterOptions = {}): Promise<Cluster> {
    const dir = path.join(block.dir, 'cluster');
    mkdirSync(dir, { recursive: true });
    const logs = options.logs ?? dir;
    const ports = { etcd: await block.port(), peer: await block.port(), api: await block.port() };
    const tokens = writeTokens(dir, options.nodes ?? ['node-1']);
    const controllers = options.controllerManager ?? true;
    const etcd = await startEtcd(dir, logs, ports);
    const audit = options.audit === undefined ? [] : auditFlags(dir, options.audit);
    const startApi = () => startApiServer(dir, logs, ports, controllers, audit);
    const cluster = new Cluster(block, dir, `https://127.0.0.1:${ports.api}`, tokens, startApi, controllers);
    cluster.children.push(etcd);
    try {
      await cluster.resume();
      if (controllers) {
        cluster.children.push(await cluster.controllerManager(logs, await block.port()));
        await cluster.hasServiceAccount('default');
      }
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  private constructor(
    block: Block,
    dir: string,
    url: string,
    tokens: Readonly<Record<string, string>>,
    startApi: () => Promise<Child>,
    controllers: boolean,
  ) {
    this.controllers = controllers;
    this.block = block;
    this.dir = dir;
    this.url = url;
    this.tokens = tokens;
    this.startApi = startApi;
    this.kubeConfig = new KubeConfig();
    // The certificate is written by the API server when it starts for the first time: the client reads it then.
    this.client = new Client(() => this.kubeConfig);
  }

  /** PEM of the authority that signed the API server's certificate. */
  get ca(): string {
    return readFileSync(this.caFile, 'utf8');
  }

  /** The certificate that the API server shows to kubelets. */
  get kubeletClientFile(): string {
    return path.join(this.dir, 'kubelet-client.crt');
  }

  get caFile(): string {
    return path.join(this.dir, 'certs', 'apiserver.crt');
  }

  /** Path of a kubeconfig file with that token. @param user a key of USERS, `node:NAME`, or a name for `token` */
  kubeconfig(user = 'admin', token = this.tokens[user]): string {
    if (token === undefined) throw new Error(`the cluster has no token for ${user}`);
    const file = path.join(this.dir, `${user.replaceAll(':', '-')}.kubeconfig`);
    const text = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: this.url, 'certificate-authority': this.caFile } }],
      users: [{ name: user, user: { token } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user } }],
      'current-context': 'test',
    });
    writeFileSync(file, text, { mode: 0o600 });
    return file;
  }

  /** A kubeconfig of a ServiceAccount that exists: with it, exactly its RBAC rules hold. */
  async serviceAccountKubeconfig(namespace: string, name: string): Promise<string> {
    const { status } = await this.client.core.createNamespacedServiceAccountToken({
      namespace,
      name,
      body: { spec: { audiences: [ISSUER], expirationSeconds: 3600 } },
    });
    return this.kubeconfig(`${namespace}:${name}`, status?.token);
  }

  /** Makes a namespace, ready for Pods. */
  async namespace(name: string, labels: Record<string, string> = {}): Promise<void> {
    await this.client.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
    if (this.controllers) await this.hasServiceAccount(name);
  }

  /** Pods are refused until the controllers have made the ServiceAccount `default`. */
  private hasServiceAccount(namespace: string): Promise<true> {
    return this.client.watch(`/api/v1/namespaces/${namespace}/serviceaccounts`, ({ object }) =>
      object.metadata?.name === 'default' ? true : undefined,
    );
  }

  /** Runs the real kubectl as admin; resolves with its stdout. */
  async kubectl(...args: string[]): Promise<string> {
    const env = { ...process.env, KUBECONFIG: this.kubeconfig(), HOME: this.dir };
    const { stdout } = await promisify(execFile)(toolPath('kubectl'), args, {
      env,
      timeout: 60_000,
      maxBuffer: 1 << 26,
    });
    return stdout;
  }

  /** What that user of `ClusterOptions.audit` has asked of the API server so far: `VERB RESOURCE[/SUBRESOURCE]` and how often. */
  async audited(): Promise<Map<string, number>> {
    const counts = new Map<string, number>();
    const lines = createInterface({ input: createReadStream(auditLog(this.dir)) });
    for await (const line of lines) {
      const { verb, objectRef = {} } = JSON.parse(line) as AuditEvent;
      const what = [objectRef.resource ?? 'other', ...(objectRef.subresource ? [objectRef.subresource] : [])].join('/');
      counts.set(`${verb} ${what}`, (counts.get(`${verb} ${what}`) ?? 0) + 1);
    }
    return counts;
  }

  /** Ends the API server; etcd keeps what it stored. For a test of a time without it. */
  async pause(): Promise<void> {
    this.api?.kill('SIGKILL');
    await this.api?.ended;
    this.api = undefined;
  }

  /** Starts the API server (again) and waits until it says that it is ready. */
  async resume(): Promise<void> {
    this.api = await this.startApi();
    const api = this.api;
    await until(
      'the API server',
      async () => {
        if (!api.running) return true;
        if (!existsSync(this.caFile)) return undefined;
        if (this.kubeConfig.getCurrentCluster() === null) this.kubeConfig.loadFromFile(this.kubeconfig());
        return (await this.client.text('/readyz')) === 'ok' ? true : undefined;
      },
      { limitMs: READY_MS, everyMs: 100 },
    );
    if (!api.running) throw new Error(`the API server ended; it said last:\n${api.tail.slice(-2_000)}`);
  }

  async stop(): Promise<void> {
    this.client.close();
    // What speaks with the API server goes first, etcd last; none of them has anything worth waiting for.
    for (const child of [...this.children.slice(1).reverse(), this.api, this.children[0]]) await child?.stop(500);
    this.children.length = 0;
    this.api = undefined;
  }

  private async controllerManager(logs: string, port: number): Promise<Child> {
    const kubeconfig = this.kubeconfig('controller-manager');
    return startBound(
      toolPath('kube-controller-manager'),
      [
        `--kubeconfig=${kubeconfig}`,
        `--authentication-kubeconfig=${kubeconfig}`,
        `--authorization-kubeconfig=${kubeconfig}`,
        '--use-service-account-credentials=true',
        `--service-account-private-key-file=${path.join(this.dir, 'service-account.key')}`,
        `--root-ca-file=${this.caFile}`,
        '--bind-address=127.0.0.1',
        `--secure-port=${port}`,
        '--leader-elect=false',
        // With the default of 20 a second, its start alone takes five.
        '--kube-api-qps=500',
        '--kube-api-burst=1000',
        '--v=1',
      ],
      { name: 'kube-controller-manager', log: path.join(logs, 'controller-manager.log') },
    );
  }
}

interface AuditEvent {
  readonly verb: string;
  readonly objectRef?: { readonly resource?: string; readonly subresource?: string };
}

const auditLog = (dir: string) => path.join(dir, 'audit.log');

function auditFlags(dir: string, user: string): string[] {
  const policy = path.join(dir, 'audit-policy.json');
  const rules = [{ level: 'Metadata', users: [user] }, { level: 'None' }];
  // A watch would be written down at its end too.
  const omitStages = ['ResponseStarted', 'ResponseComplete', 'Panic'];
  writeFileSync(policy, JSON.stringify({ apiVersion: 'audit.k8s.io/v1', kind: 'Policy', omitStages, rules }));
  return [`--audit-policy-file=${policy}`, `--audit-log-path=${auditLog(dir)}`];
}

interface Ports {
  readonly etcd: number;
  readonly peer: number;
  readonly api: number;
}

function startEtcd(dir: string, logs: string, { etcd, peer }: Ports): Promise<Child> {
  const client = `http://127.0.0.1:${etcd}`;
  return startBound(
    toolPath('etcd'),
    [
      `--data-dir=${path.join(dir, 'etcd')}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
      `--initial-cluster=default=http://127.0.0.1:${peer}`,
      // Nothing outlives the test, so nothing waits for the disk.
      '--unsafe-no-fsync',
    ],
    { name: 'etcd', log: path.join(logs, 'etcd.log'), ready: /ready to serve client requests|serving client/ },
  );
}

function startApiServer(
  dir: string,
  logs: string,
  { etcd, api }: Ports,
  controllers: boolean,
  more: readonly string[],
): Promise<Child> {
  const key = path.join(dir, 'service-account.key');
  return startBound(
    toolPath('kube-apiserver'),
    [
      `--etcd-servers=http://127.0.0.1:${etcd}`,
      '--bind-address=127.0.0.1',
      '--advertise-address=127.0.0.1',
      `--secure-port=${api}`,
      `--cert-dir=${path.join(dir, 'certs')}`,
      `--service-account-key-file=${key}`,
      `--service-account-signing-key-file=${key}`,
      `--service-account-issuer=${ISSUER}`,
      `--token-auth-file=${path.join(dir, 'tokens.csv')}`,
      '--authorization-mode=Node,RBAC',
      '--enable-admission-plugins=NodeRestriction',
      '--service-cluster-ip-range=10.96.0.0/24',
      '--endpoint-reconciler-type=none',
      `--kubelet-client-certificate=${path.join(dir, 'kubelet-client.crt')}`,
      `--kubelet-client-key=${path.join(dir, 'kubelet-client.key')}`,
      '--kubelet-preferred-address-types=InternalIP',
      '--allow-privileged=true',
      // Without the controllers nobody makes the ServiceAccount `default` that this plugin asks for.
      ...more,
      ...(controllers ? [] : ['--disable-admission-plugins=ServiceAccount']),
    ],
    { name: 'kube-apiserver', log: path.join(logs, 'apiserver.log') },
  );
}

/** The API server's token file, and the key of the ServiceAccounts' tokens. */
function writeTokens(dir: string, nodes: readonly string[]): Record<string, string> {
  const tokens: Record<string, string> = {};
  const lines: string[] = [];
  const add = (name: string, user: string, groups: readonly string[]) => {
    const token = randomUUID();
    tokens[name] = token;
    lines.push(`${token},${user},${user},"${groups.join(',')}"`);
  };
  for (const [name, { user, groups }] of Object.entries(USERS)) add(name, user, groups);
  for (const node of nodes) add(`node:${node}`, `system:node:${node}`, ['system:nodes']);
  writeFileSync(path.join(dir, 'tokens.csv'), `${lines.join('\n')}\n`, { mode: 0o600 });
  // With it the API server calls a kubelet, for `kubectl exec` and `logs`.
  const { certificate, key } = selfSigned('kube-apiserver-kubelet-client');
  writeFileSync(path.join(dir, 'kubelet-client.crt'), certificate);
  writeFileSync(path.join(dir, 'kubelet-client.key'), key, { mode: 0o600 });
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  writeFileSync(path.join(dir, 'service-account.key'), privateKey.export({ type: 'pkcs8', format: 'pem' }), {
    mode: 0o600,
  });
  return tokens;
}
