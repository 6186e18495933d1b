import { get } from 'node:http';

export interface Probes {
  /** Probes answered 200. */
  readonly ok: number;
  /** Answers other than 200 and errors, in words. */
  readonly failures: readonly string[];
  /** Texts of the answers, each once, in the order of their first coming. */
  readonly texts: readonly string[];
}

const BOUND_MS = 5_000;

/**
 * Probes a status port as a kubelet does, a new connection each, `everyMs` apart and whatever the one before came to; only
 * far more often than a kubelet.
 */
export function probeStatus(port: number, everyMs = 10, host = '127.0.0.1'): { stop(): Promise<Probes> } {
  let ok = 0;
  const failures: string[] = [];
  const texts = new Set<string>();
  const pending = new Set<Promise<void>>();
  const once = (): Promise<void> =>
    new Promise((resolve) => {
      const fail = (error: Error): void => {
        failures.push(error.message);
        resolve();
      };
      const call = get({ port, host, path: '/healthz/ready', agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part: string) => {
          text += part;
        });
        response.on('error', fail);
        response.on('end', () => {
          texts.add(text.trim());
          if (response.statusCode === 200) ok++;
          else failures.push(`${response.statusCode} ${text.trim()}`);
          resolve();
        });
      });
      call.setTimeout(BOUND_MS, () => call.destroy(new Error('no answer')));
      call.on('error', fail);
    });
  const timer = setInterval(() => {
    const one = once();
    pending.add(one);
    void one.finally(() => pending.delete(one));
  }, everyMs);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(pending);
      return { ok, failures, texts: [...texts] };
    },
  };
}
