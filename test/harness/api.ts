import { API_PREFIX, type CreateUpgrade, type ProxyView, type UpgradeView, type WatchItem } from '@sluice/contract';

const LIMIT_MS = 15_000;

/** The controller's HTTP API as a test needs it. Errors carry the API's own message. */
export class Api {
  readonly base: string;

  constructor(port: number) {
    this.base = `http://127.0.0.1:${port}`;
  }

  proxy(name: string): Promise<ProxyView> {
    return this.call<ProxyView>('GET', `/proxies/${name}`);
  }

  upgrade(id: string): Promise<UpgradeView> {
    return this.call<UpgradeView>('GET', `/upgrades/${id}`);
  }

  create(body: CreateUpgrade): Promise<UpgradeView> {
    return this.call<UpgradeView>('POST', '/upgrades', body);
  }

  async call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const response = await fetch(this.base + API_PREFIX + path, {
      method,
      signal: AbortSignal.timeout(LIMIT_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    const answer = (await response.json()) as T & { message?: string; hint?: string };
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.message} (${answer.hint})`);
    return answer;
  }

  /** Every change, until the signal aborts or the controller goes away; then it resolves. */
  async watch(onItem: (item: WatchItem) => void, signal: AbortSignal): Promise<void> {
    try {
      const response = await fetch(`${this.base + API_PREFIX}/watch`, { signal });
      let rest = '';
      for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) if (line !== '') onItem(JSON.parse(line) as WatchItem);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
