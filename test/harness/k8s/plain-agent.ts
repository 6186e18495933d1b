import { type AgentLink, createLink } from '@sluice/agent/link/index';
import {
  type AgentMessage,
  type ControllerMessage,
  type EndedConnection,
  type EpochStatus,
  PROTOCOL_VERSION,
  type Verdict,
} from '@sluice/contract';

const VERDICT: Verdict = {
  safe: true,
  summary: 'safe: no connection is left',
  at: 0,
  total: 0,
  protected: 0,
  holding: 0,
  held: [],
  witnesses: [],
  pastDeadline: false,
};

/**
 * An agent without an Envoy, on the agent's own link, for what a controller does when it dies or its state is away. It does at once
 * what it is ordered; its old epoch is safe when `safe` is called. `orders` has each order as often as it came.
 */
export class PlainAgent {
  readonly orders: string[] = [];
  readonly #proxy: string;
  readonly #link: AgentLink;
  readonly #end = new AbortController();
  readonly #waiting: { text: string; resolve: () => void }[] = [];
  #epochs: EpochStatus[] = [{ epoch: 0, slot: '1', state: 'serving', version: '1.38.3', pid: 1, startedAt: 1 }];
  #safe = false;

  /** @param url the controller's API */
  constructor(url: string, proxy: string) {
    this.#proxy = proxy;
    this.#link = createLink({
      urls: [url],
      hello: () => this.#hello(),
      onMessage: (message) => this.#hear(message),
      log: () => undefined,
      signal: this.#end.signal,
      backoffFirstMs: 50,
      backoffMaxMs: 200,
    });
  }

  get epochs(): readonly EpochStatus[] {
    return this.#epochs;
  }

  /** Resolves when an order of this text came, now or before. */
  ordered(text: string): Promise<void> {
    return new Promise((resolve) => {
      if (this.orders.some((one) => one.startsWith(text))) resolve();
      else this.#waiting.push({ text, resolve });
    });
  }

  /** Nothing is left on old epochs, from now on. */
  safe(): void {
    this.#safe = true;
    this.#tellVerdict();
  }

  ended(items: readonly EndedConnection[], dropped = 0): void {
    const old = this.#old();
    if (old?.upgradeId !== undefined)
      this.#link.send({ type: 'ended', upgradeId: old.upgradeId, epoch: old.epoch, items, dropped });
  }

  stop(): void {
    this.#end.abort();
  }

  #hello() {
    const epochs = this.#epochs.map((one) => ({
      ...one,
      ...(one.state === 'draining' && { verdict: this.#verdict() }),
    }));
    return {
      ...{ type: 'hello' as const, v: PROTOCOL_VERSION, proxy: this.#proxy, slot: '1', agentVersion: '0.0.0' },
      ...{ identity: {}, epochs, versions: ['1.38.3', '1.40.0'] },
    };
  }

  #hear(message: ControllerMessage): void {
    const at = Date.now();
    const old = this.#old();
    switch (message.type) {
      case 'preflight': {
        const { upgradeId } = message;
        this.#link.send({ type: 'preflight', upgradeId, ok: true, checks: [], from: '1.38.3', to: '1.40.0' });
        break;
      }
      case 'start':
        this.#start(message.upgradeId, at);
        break;
      case 'drain': {
        const { upgradeId, version, epoch } = message.order;
        this.#link.send({ type: 'orderApplied', upgradeId, epoch, version, via: 'link', at });
        this.#tellVerdict();
        break;
      }
      case 'reset':
        if (old?.upgradeId === undefined || old.epoch !== message.epoch) break;
        this.#epochs = this.#epochs.filter((one) => one !== old);
        this.#send({ type: 'reset', upgradeId: old.upgradeId, epoch: old.epoch, at, drained: 3, cut: [], old: 3 });
        break;
      default:
        return;
    }
    this.#note(`${message.type} ${'upgradeId' in message ? message.upgradeId : ''}`);
  }

  #start(upgradeId: string, at: number): void {
    const serving = this.#epochs.find(({ state }) => state === 'serving') as EpochStatus;
    if (serving.upgradeId === upgradeId) return;
    const fresh: EpochStatus = {
      ...{ epoch: serving.epoch + 1, slot: '1', state: 'serving', version: '1.40.0', pid: 2, startedAt: at },
      upgradeId,
    };
    this.#epochs = [fresh, { ...serving, state: 'draining', drainingSince: at, upgradeId }];
    const { epoch: oldEpoch, version: from } = serving;
    const told = { type: 'serving' as const, upgradeId, epoch: fresh.epoch, oldEpoch, from, to: '1.40.0', at };
    this.#send({ ...told, method: 'hot-restart' });
  }

  #send(message: AgentMessage): void {
    this.#link.send(message);
    this.#link.send({ type: 'epochs', epochs: this.#epochs });
  }

  #tellVerdict(): void {
    const old = this.#old();
    if (old?.upgradeId === undefined) return;
    this.#link.send({ type: 'verdict', upgradeId: old.upgradeId, epoch: old.epoch, verdict: this.#verdict() });
  }

  #verdict(): Verdict {
    const at = Date.now();
    if (this.#safe) return { ...VERDICT, at };
    return { ...VERDICT, safe: false, summary: 'wait: 3 connections protected', total: 3, protected: 3, at };
  }

  #old(): EpochStatus | undefined {
    return this.#epochs.find(({ state }) => state === 'draining');
  }

  #note(text: string): void {
    this.orders.push(text);
    for (const one of this.#waiting.filter((one) => text.startsWith(one.text))) {
      this.#waiting.splice(this.#waiting.indexOf(one), 1);
      one.resolve();
    }
  }
}
