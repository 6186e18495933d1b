import { Balancer } from '../balancer.ts';
import type { Block } from '../ports.ts';
import type { Child } from '../process.ts';
import { startKubeController } from './installed.ts';

/** Shorter than in production, so that a test need not wait for it; long enough for a busy machine. */
const LEASE_SECONDS = 5;

export interface Kill {
  /** What a line of the log that was awaited holds. */
  readonly when: string;
  readonly killed: string;
}

/** Several controllers behind one address, of which the one that leads is killed at lines of their logs. */
export class Leaders {
  readonly api: string;
  readonly xds: string;
  readonly kills: Kill[] = [];
  readonly #options: { readonly kubeconfig: string; readonly host: string };
  readonly #replicas = new Map<string, { readonly ports: readonly [number, number]; child?: Child }>();
  #balancers: Balancer[] = [];
  #leader: string | undefined;
  #awaited: string[] = [];
  #failed: unknown;

  static async start(block: Block, options: { readonly kubeconfig: string; readonly host: string }): Promise<Leaders> {
    const ports: [number, number][] = [];
    for (let n = 0; n < 3; n++) ports.push([await block.port(), await block.port()]);
    const [api, xds] = [await block.port(), await block.port()];
    const { host } = options;
    const leaders = new Leaders(ports, { ...options, api, xds });
    for (const [i, port] of [api, xds].entries()) {
      const targets = ports.map((pair) => pair[i] as number);
      leaders.#balancers.push(await Balancer.start(port, targets, host));
    }
    for (const id of leaders.#replicas.keys()) await leaders.#start(id);
    return leaders;
  }

  private constructor(
    ports: readonly (readonly [number, number])[],
    { api, xds, ...options }: { kubeconfig: string; host: string; api: number; xds: number },
  ) {
    this.#options = options;
    this.api = `${options.host}:${api}`;
    this.xds = `${options.host}:${xds}`;
    for (const [n, pair] of ports.entries()) this.#replicas.set(`sluice-controller-${n}`, { ports: pair });
  }

  /** The leader is killed when a line holds the first of these, the next one at the second, and so on. */
  killAt(lines: readonly string[]): void {
    this.#awaited = [...lines];
  }

  /** Throws when a killed one could not be started again. */
  check(): void {
    if (this.#failed !== undefined) throw this.#failed;
  }

  async stop(): Promise<void> {
    this.#awaited = [];
    for (const { child } of this.#replicas.values()) await child?.stop();
    for (const balancer of this.#balancers) balancer.stop();
  }

  async #start(id: string): Promise<void> {
    const replica = this.#replicas.get(id);
    if (replica === undefined) return;
    const { kubeconfig, host } = this.#options;
    const [api, xds] = replica.ports;
    const log = process.env.SLUICE_K8S_LOG;
    replica.child = await startKubeController({
      kubeconfig,
      api: `${host}:${api}`,
      xds: `${host}:${xds}`,
      replica: { id, leaseSeconds: LEASE_SECONDS },
      onLine: (line) => this.#onLine(id, line),
      ...(log !== undefined && { log: `${log}.${id}` }),
    });
  }

  #onLine(id: string, line: string): void {
    if (line.includes('"msg":"leader"')) this.#leader = id;
    const [when] = this.#awaited;
    // Without one that leads there is none to kill: the next such line, then.
    if (when === undefined || this.#leader === undefined || !line.includes(when)) return;
    this.#awaited.shift();
    const killed = this.#leader;
    this.#leader = undefined;
    this.kills.push({ when, killed });
    const child = this.#replicas.get(killed)?.child;
    child?.kill('SIGKILL');
    void child?.ended
      .then(() => this.#start(killed))
      .catch((error: unknown) => {
        this.#failed = error;
      });
  }
}
