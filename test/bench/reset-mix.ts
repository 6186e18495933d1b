import { clientPortsOf } from '../harness/kernel.ts';
import type { CrowdOptions, CrowdQuestion, Ports } from './clients/crowd.ts';
import type { CrowdReport } from './clients/crowd-main.ts';
import { Worker } from './clients/worker.ts';
import { type Fate, fateOf } from './fate.ts';
import type { TrafficMix } from './reset.ts';
import { processEnd, sleep } from './running.ts';

const WARM_UP_MS = 4_000;
/** So that what the process's exit ends is known to the clients. */
const SETTLE_MS = 300;

export interface MixResult extends Omit<Fate, 'trueEnd'> {
  readonly mix: string;
  /** From the drain order. */
  readonly resetMs: number;
  readonly trueEndMs: number;
  readonly afterTrueEndMs: number;
  readonly failures: readonly string[];
}

/** One mix through one drain: its clients, and the fate of what the old process held. */
export class MixRun {
  private readonly mix: TrafficMix;
  private readonly ports: Ports;
  private readonly clients: Worker<CrowdQuestion, CrowdReport>;
  private orderAt = Number.NaN;
  private oldPorts: ReadonlySet<number> = new Set();
  private seenAt = Number.NaN;

  private constructor(mix: TrafficMix, ports: Ports, clients: Worker<CrowdQuestion, CrowdReport>) {
    this.mix = mix;
    this.ports = ports;
    this.clients = clients;
  }

  static async start(mix: TrafficMix, targets: Ports & { readonly host: string }): Promise<MixRun> {
    const ports = { http: targets.http, tcp: targets.tcp };
    const options: CrowdOptions = { host: targets.host, ports, ...mix };
    const clients = Worker.start<CrowdQuestion, CrowdReport>(
      new URL('./clients/crowd-main.ts', import.meta.url),
      options,
    );
    await clients.ask('start');
    await sleep(WARM_UP_MS);
    return new MixRun(mix, ports, clients);
  }

  /** To be called as soon as the old process accepts no more: what it holds now is all it will ever hold. */
  async drainBegun(pid: number, orderAt: number, newPorts?: Ports): Promise<void> {
    this.orderAt = orderAt;
    await this.clients.ask({ drain: newPorts });
    this.seenAt = Date.now();
    // None: it has ended already.
    this.oldPorts = await clientPortsOf(pid, [this.ports.http, this.ports.tcp]).catch(() => new Set<number>());
  }

  /** `resetAt`: when the old process was told to end, asked once it has ended. */
  async processEnded(pid: number, limitMs: number, resetAt: () => number | Promise<number>): Promise<MixResult> {
    const endedAt = await processEnd(pid, limitMs);
    await sleep(SETTLE_MS);
    const told = await resetAt();
    const { records, failures } = await this.clients.ask('report');
    const { trueEnd, ...fate } = fateOf(records, this.oldPorts, this.seenAt, told);
    return {
      mix: this.mix.name,
      resetMs: endedAt - this.orderAt,
      trueEndMs: trueEnd - this.orderAt,
      afterTrueEndMs: endedAt - trueEnd,
      ...fate,
      failures: failures.slice(0, 10),
    };
  }

  stop(): void {
    this.clients.stop();
  }
}
