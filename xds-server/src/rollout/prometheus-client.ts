import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { SluiceError } from '@sluice/contract';
import { type Sample, samplesOf, unknown } from './prometheus-query.ts';

export interface PrometheusAddress {
  /** Base of its API: `/api/v1/query` is put behind it. */
  readonly url: string;
  /** Read at each question: tokens of ServiceAccounts are exchanged while they are in use. */
  readonly bearerTokenFile?: string | undefined;
  /** Who is trusted instead of the certificate authorities that Node brings along. */
  readonly caFile?: string | undefined;
}

const TIMEOUT_MS = 10_000;
/** A sample for each of thousands of members. */
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
const SOCKETS = 4;

/** Asks a Prometheus, or what speaks as one (Thanos, Mimir, VictoriaMetrics). Follows no redirect: its token is for this one alone. */
export class PrometheusClient {
  readonly #url: URL;
  readonly #tokenFile: string | undefined;
  readonly #agent: http.Agent;

  /** Throws CONFIG_INVALID. */
  constructor({ url, bearerTokenFile, caFile }: PrometheusAddress) {
    this.#url = new URL(`${url.replace(/\/+$/, '')}/api/v1/query`);
    this.#tokenFile = bearerTokenFile;
    const options = { keepAlive: true, maxSockets: SOCKETS };
    if (this.#url.protocol === 'http:') this.#agent = new http.Agent(options);
    else this.#agent = new https.Agent({ ...options, ...(caFile !== undefined && { ca: certificates(caFile) }) });
  }

  /** Throws METRICS_UNKNOWN. */
  async query(query: string, signal: AbortSignal): Promise<Sample[]> {
    const body = new URLSearchParams({ query, timeout: `${TIMEOUT_MS / 1_000}s` }).toString();
    const { status, text } = await this.#post(body, AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]));
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch (cause) {
      throw unknown(
        `${this.#url.origin} is no Prometheus: status ${status}, ${JSON.stringify(text.slice(0, 80))}`,
        cause,
      );
    }
    // A query that is refused is told by status 400 and in the answer.
    return samplesOf(answer);
  }

  close(): void {
    this.#agent.destroy();
  }

  async #post(body: string, signal: AbortSignal): Promise<{ status: number; text: string }> {
    const headers: http.OutgoingHttpHeaders = {
      'content-type': 'application/x-www-form-urlencoded',
      'content-length': Buffer.byteLength(body),
    };
    try {
      if (this.#tokenFile !== undefined)
        headers.authorization = `Bearer ${(await readFile(this.#tokenFile, 'utf8')).trim()}`;
      return await this.#exchange(body, headers, signal);
    } catch (thrown) {
      if (thrown instanceof SluiceError) throw thrown;
      const why = signal.aborted ? `no answer within ${TIMEOUT_MS / 1_000} s` : (thrown as Error).message;
      throw unknown(`${this.#url.origin}: ${why}`, thrown);
    }
  }

  #exchange(body: string, headers: http.OutgoingHttpHeaders, signal: AbortSignal) {
    const { request } = this.#url.protocol === 'http:' ? http : https;
    return new Promise<{ status: number; text: string }>((resolve, reject) => {
      const sent = request(this.#url, { method: 'POST', headers, agent: this.#agent, signal }, (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          chunks.push(chunk);
          if (size > MAX_ANSWER_BYTES) response.destroy(unknown(`an answer of more than ${MAX_ANSWER_BYTES} bytes`));
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }),
        );
        response.on('error', reject);
      });
      sent.on('error', reject);
      sent.end(body);
    });
  }
}

function certificates(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new SluiceError('CONFIG_INVALID', `metrics.prometheus.caFile: ${(cause as Error).message}`, { cause });
  }
}
