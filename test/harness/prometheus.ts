import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { exists, k8sCacheDir, locked } from './k8s/cache.ts';
import { type Child, start } from './process.ts';

const run = promisify(execFile);
const DOWNLOAD_MS = 180_000;
const INSTALLED = '/usr/bin/prometheus';

/**
 * Path of Debian's Prometheus: installed, or unpacked from its package into the cache, which needs neither root nor its
 * dependencies (they are the web pages' fonts and scripts). Resolves with undefined where it can not be had.
 */
export async function prometheusBinary(): Promise<string | undefined> {
  if (await exists(INSTALLED)) return INSTALLED;
  const dir = path.resolve(k8sCacheDir(), '../debian');
  const target = path.join(dir, 'prometheus', INSTALLED);
  if (await exists(target)) return target;
  return locked(dir, async () => {
    if (await exists(target)) return target;
    await mkdir(dir, { recursive: true });
    const fresh = await mkdtemp(path.join(dir, '.fresh-'));
    try {
      await run('apt-get', ['download', '-q', 'prometheus'], { cwd: fresh, timeout: DOWNLOAD_MS });
      const [file = ''] = (await readdir(fresh)).filter((one) => one.endsWith('.deb'));
      await run('dpkg-deb', ['-x', file, 'unpacked'], { cwd: fresh, timeout: DOWNLOAD_MS });
      await rm(path.join(dir, 'prometheus'), { recursive: true, force: true });
      await rename(path.join(fresh, 'unpacked'), path.join(dir, 'prometheus'));
      return target;
    } catch {
      return undefined;
    } finally {
      await rm(fresh, { recursive: true, force: true });
    }
  });
}

export interface ScrapeTarget {
  /** `HOST:PORT`, with stats at /stats/prometheus. */
  readonly address: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A Prometheus that scrapes each second. */
export class Prometheus {
  readonly url: string;
  readonly #args: readonly string[];
  readonly #binary: string;
  #child: Child | undefined;

  private constructor(binary: string, url: string, args: readonly string[]) {
    this.#binary = binary;
    this.url = url;
    this.#args = args;
  }

  /** @param dir a folder of its own, which it makes */
  static async start(binary: string, dir: string, port: number, targets: readonly ScrapeTarget[]): Promise<Prometheus> {
    await mkdir(dir, { recursive: true });
    const scrape = {
      job_name: 'envoys',
      metrics_path: '/stats/prometheus',
      static_configs: targets.map(({ address, labels }) => ({ targets: [address], labels })),
    };
    const config = path.join(dir, 'prometheus.yml');
    const global = { scrape_interval: '1s', scrape_timeout: '1s' };
    // JSON is YAML.
    await writeFile(config, JSON.stringify({ global, scrape_configs: [scrape] }));
    const address = `127.0.0.1:${port}`;
    const args = [`--config.file=${config}`, `--storage.tsdb.path=${dir}/data`, `--web.listen-address=${address}`];
    const prometheus = new Prometheus(binary, `http://${address}`, args);
    await prometheus.resume();
    return prometheus;
  }

  async resume(): Promise<void> {
    this.#child = await start(this.#binary, [...this.#args], {
      name: 'prometheus',
      ready: /Server is ready to receive web requests/,
    });
  }

  /** SIGKILL: it is away until `resume`. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#child?.ended;
  }
}
