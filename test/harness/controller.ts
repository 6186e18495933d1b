import path from 'node:path';
import type { Phase, ProxyView, UpgradeView } from '@sluice/contract';
import { type Child, start, until } from './process.ts';

export interface ControllerSetup {
  readonly apiPort: number;
  readonly xdsPort: number;
  /** SQLite file: the same one again is the same controller after a kill. */
  readonly state: string;
  readonly resources?: string;
  readonly log?: string;
  /** More of its config. */
  readonly config?: Record<string, unknown>;
}

/** A controller process and its API. */
export class ControllerProcess {
  readonly setup: ControllerSetup;
  child!: Child;

  private constructor(setup: ControllerSetup) {
    this.setup = setup;
  }

  static async start(setup: ControllerSetup): Promise<ControllerProcess> {
    const controller = new ControllerProcess(setup);
    await controller.restart();
    return controller;
  }

  /** Starts it (again) on the same ports and the same state. */
  async restart(): Promise<void> {
    const { apiPort, xdsPort, state, resources, log, config: more } = this.setup;
    const config = {
      apiAddress: `127.0.0.1:${apiPort}`,
      xdsAddress: `127.0.0.1:${xdsPort}`,
      state,
      logLevel: 'debug',
      ...(resources !== undefined && { resources }),
      ...more,
    };
    const main = path.join(import.meta.dirname, 'controller-main.ts');
    this.child = await start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(config)], {
      name: 'controller',
      ready: /^controller ready/,
      ...(log !== undefined && { log }),
    });
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.child.ended;
  }

  get url(): string {
    return `http://127.0.0.1:${this.setup.apiPort}`;
  }

  async call<T>(method: string, url: string, body?: unknown): Promise<T> {
    const response = await fetch(`${this.url}/api/v1${url}`, {
      method,
      signal: AbortSignal.timeout(30_000),
      ...(body !== undefined && { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const answer = (await response.json()) as T & { code?: string; message?: string };
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${answer.code} ${answer.message}`);
    return answer;
  }

  proxy(name: string): Promise<ProxyView> {
    return this.call('GET', `/proxies/${name}`);
  }

  upgrade(id: string): Promise<UpgradeView> {
    return this.call('GET', `/upgrades/${id}`);
  }

  async startUpgrade(proxy: string, to: string, policy?: unknown): Promise<UpgradeView> {
    return this.call('POST', '/upgrades', { proxy, to, ...(policy !== undefined && { policy }) });
  }

  /** Until the proxy's agent is linked. */
  async linked(proxy: string): Promise<void> {
    await until(`the agent of ${proxy} is linked`, async () =>
      (await this.proxy(proxy)).epochs.length > 0 ? true : undefined,
    );
  }

  /** Until the upgrade is in one of the phases; a terminal phase that is not wanted is an error. */
  async phase(id: string, wanted: readonly Phase[], limitMs = 60_000): Promise<UpgradeView> {
    const ended: readonly Phase[] = ['Done', 'Failed', 'RolledBack'];
    let stuck: UpgradeView | undefined;
    const found = await until(
      `upgrade ${id} in ${wanted.join(' or ')}`,
      async () => {
        const view = await this.upgrade(id);
        if (wanted.includes(view.phase)) return view;
        if (ended.includes(view.phase)) {
          stuck = view;
          return view;
        }
        return undefined;
      },
      { limitMs, everyMs: 50 },
    );
    if (stuck) throw new Error(`upgrade ${id} ended ${stuck.phase}: ${JSON.stringify(stuck)}`);
    return found;
  }
}
