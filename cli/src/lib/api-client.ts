import {
  API_PREFIX,
  type CheckView,
  type ConnectionsView,
  type CreateRollout,
  type CreateUpgrade,
  type EndedView,
  type ExplainView,
  isTerminal,
  NdjsonDecoder,
  type PolicyPatch,
  type ProxyView,
  type ResetRequest,
  type RolloutVerb,
  type RolloutView,
  SluiceError,
  type UpgradeTarget,
  type UpgradeView,
  type WatchItem,
} from '@sluice/contract';
import { knownCode } from './failure.ts';

export const DEFAULT_CONTROLLER = 'http://127.0.0.1:18080';
const REQUEST_MS = 15_000;
/** A check runs the target's `--mode validate`. */
const CHECK_MS = 90_000;
/** The watch sends a line at least this often, or it is given up. */
const WATCH_SILENCE_MS = 30_000;
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/** The controller's HTTP API. Every call is bounded; what goes wrong is a SluiceError. */
export class ApiClient {
  readonly url: string;

  constructor(url: string) {
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new SluiceError(
        'CONFIG_INVALID',
        `--controller: expected a URL http://host:port, found ${JSON.stringify(url)}`,
      );
    }
    this.url = url.replace(/\/+$/, '');
  }

  async proxies(): Promise<readonly ProxyView[]> {
    return (await this.#call<{ items: readonly ProxyView[] }>('GET', '/proxies')).items;
  }
  proxy(name: string): Promise<ProxyView> {
    return this.#call('GET', `/proxies/${encodeURIComponent(name)}`);
  }
  connections(proxy: string, query: { epoch?: number; limit?: number }): Promise<ConnectionsView> {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
    return this.#call('GET', `/proxies/${encodeURIComponent(proxy)}/connections${search.size > 0 ? `?${search}` : ''}`);
  }
  explain(proxy: string): Promise<ExplainView> {
    return this.#call('GET', `/proxies/${encodeURIComponent(proxy)}/explain`);
  }
  /** `policy`: what the plan's notes are told for; the controller's own when absent. */
  check(proxy: string, target: UpgradeTarget, policy?: PolicyPatch): Promise<CheckView> {
    const body = { ...target, ...(policy !== undefined && { policy }) };
    return this.#call('POST', `/proxies/${encodeURIComponent(proxy)}/check`, body, CHECK_MS);
  }
  /** How the connections of its old epoch ended. */
  ended(id: string): Promise<EndedView> {
    return this.#call('GET', `/upgrades/${encodeURIComponent(id)}/connections`);
  }
  async upgrades(): Promise<readonly UpgradeView[]> {
    return (await this.#call<{ items: readonly UpgradeView[] }>('GET', '/upgrades')).items;
  }
  upgrade(id: string): Promise<UpgradeView> {
    return this.#call('GET', `/upgrades/${encodeURIComponent(id)}`);
  }
  create(request: CreateUpgrade): Promise<UpgradeView> {
    return this.#call('POST', '/upgrades', request);
  }
  abort(id: string): Promise<UpgradeView> {
    return this.#call('POST', `/upgrades/${encodeURIComponent(id)}/abort`, {});
  }
  rollback(id: string): Promise<UpgradeView> {
    return this.#call('POST', `/upgrades/${encodeURIComponent(id)}/rollback`, {});
  }
  reset(id: string, request: ResetRequest): Promise<UpgradeView> {
    return this.#call('POST', `/upgrades/${encodeURIComponent(id)}/reset`, request);
  }

  async rollouts(): Promise<readonly RolloutView[]> {
    return (await this.#call<{ items: readonly RolloutView[] }>('GET', '/rollouts')).items;
  }
  rollout(id: string): Promise<RolloutView> {
    return this.#call('GET', `/rollouts/${encodeURIComponent(id)}`);
  }
  createRollout(request: CreateRollout): Promise<RolloutView> {
    return this.#call('POST', '/rollouts', request);
  }
  rolloutVerb(id: string, verb: RolloutVerb): Promise<RolloutView> {
    return this.#call('POST', `/rollouts/${encodeURIComponent(id)}/${verb}`, {});
  }

  /** An upgrade by its id, or a proxy's newest one by the proxy's name (the newest that has not ended, if there is one). */
  async find(reference: string): Promise<UpgradeView> {
    const all = await this.upgrades();
    const byId = all.find((u) => u.id === reference);
    if (byId) return byId;
    const own = all.filter((u) => u.proxy === reference).sort((a, b) => b.createdAt - a.createdAt);
    const found = own.find((u) => !isTerminal(u.phase)) ?? own[0];
    if (found) return found;
    throw new SluiceError(
      'UPGRADE_UNKNOWN',
      `expected an upgrade's id or a proxy that has one, found ${JSON.stringify(reference)}`,
    );
  }

  /** Changes as they happen, everything known at first. Ends when the controller ends it; CONTROLLER_AWAY when it breaks. */
  async *watch(signal: AbortSignal): AsyncGenerator<WatchItem> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
    try {
      const response = await this.#fetch('/watch', { signal: AbortSignal.any([signal, silence.signal]) });
      if (!response.ok || response.body === null) throw await this.#failure(response);
      const decoder = new NdjsonDecoder(MAX_ANSWER_BYTES);
      for await (const chunk of response.body) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
        for (const line of decoder.push(chunk)) yield line as unknown as WatchItem;
      }
    } catch (thrown) {
      throw signal.aborted || thrown instanceof SluiceError ? thrown : this.#away(thrown);
    } finally {
      clearTimeout(timer);
    }
  }

  async #call<T>(method: string, path: string, body?: unknown, timeoutMs = REQUEST_MS): Promise<T> {
    const response = await this.#fetch(path, {
      method,
      signal: AbortSignal.timeout(timeoutMs),
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    if (!response.ok) throw await this.#failure(response);
    try {
      return JSON.parse(await readBounded(response)) as T;
    } catch (cause) {
      throw cause instanceof SluiceError ? cause : this.#away(cause, 'an answer that is no JSON');
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(`${this.url}${API_PREFIX}${path}`, init);
    } catch (thrown) {
      throw this.#away(thrown);
    }
  }

  async #failure(response: Response): Promise<SluiceError> {
    try {
      const said = JSON.parse(await readBounded(response)) as Record<string, unknown>;
      const code = knownCode(said.code);
      if (typeof said.message === 'string' && (code !== undefined || typeof said.code === 'string')) {
        const text = code === undefined ? `${said.code}: ${said.message}` : said.message;
        return new SluiceError(code ?? 'INTERNAL', text, typeof said.hint === 'string' ? { hint: said.hint } : {});
      }
    } catch {
      // Not ours: said below.
    }
    return this.#away(undefined, `HTTP ${response.status} without an error of ours`);
  }

  #away(cause: unknown, found?: string): SluiceError {
    const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
    const why = found ?? (inner instanceof Error ? inner.message || inner.name : String(inner));
    return new SluiceError('CONTROLLER_AWAY', `expected a controller at ${this.url}, found: ${why}`, {
      cause,
      hint: 'is it running? give its address by --controller or SLUICE_CONTROLLER',
    });
  }
}

async function readBounded(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.length;
    if (size > MAX_ANSWER_BYTES)
      throw new SluiceError('TOO_LARGE', `expected an answer of at most ${MAX_ANSWER_BYTES} bytes`);
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString('utf8');
}
