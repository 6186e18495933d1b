import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

const run = promisify(execFile);
const PLACES = ['/usr/sbin/haproxy', '/usr/local/sbin/haproxy', '/usr/bin/haproxy'];
const INSTALL_MS = 240_000;

/**
 * The HAProxy of this machine; where there is none, Debian's is installed if that is possible (root and apt-get). Resolves
 * with what is missing otherwise: a test says it and is skipped.
 */
export async function findHaproxy(): Promise<{ readonly binary?: string; readonly missing?: string }> {
  const found = place();
  if (found !== undefined) return { binary: found };
  if (process.getuid?.() !== 0) return { missing: 'HAProxy is not installed, and only root may install it' };
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    await run('apt-get', ['update', '-q'], { timeout: INSTALL_MS, env });
    await run('apt-get', ['install', '-y', '-q', 'haproxy'], { timeout: INSTALL_MS, env });
  } catch (error) {
    return { missing: `HAProxy is not installed, and apt-get could not: ${(error as Error).message.split('\n', 1)}` };
  }
  const installed = place();
  return installed === undefined ? { missing: 'apt-get installed no HAProxy' } : { binary: installed };
}

function place(): string | undefined {
  return PLACES.find((path) => existsSync(path));
}

export interface HaproxyUpstreams {
  readonly http: number;
  readonly http2: number;
  readonly tcp: number;
}

export interface HaproxyConfig {
  /** Said in a header of each answer. */
  readonly name: string;
  readonly upstream: HaproxyUpstreams;
  /** Default true. */
  readonly idleCloseOnResponse?: boolean;
  /** Seconds of silence after which an idle client connection is closed. Default 60. */
  readonly keepAliveSeconds?: number;
  readonly extra?: string;
}

/** Three frontends on inherited sockets: HTTP/1 on FD_HTTP, HTTP/2 without TLS on FD_H2, TCP on FD_TCP. */
export function haproxyConfig({
  name,
  upstream,
  idleCloseOnResponse = true,
  keepAliveSeconds = 60,
  extra = '',
}: HaproxyConfig): string {
  const idle = idleCloseOnResponse ? 'option idle-close-on-response' : '';
  return `
global
  maxconn 4000
  nbthread 2
defaults
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive ${keepAliveSeconds}s
frontend http
  mode http
  bind "fd@\${FD_HTTP}"
  ${idle}
  http-response set-header x-config ${name}
  default_backend http
frontend h2
  mode http
  bind "fd@\${FD_H2}" proto h2
  ${idle}
  http-response set-header x-config ${name}
  default_backend h2
frontend tcp
  mode tcp
  bind "fd@\${FD_TCP}"
  default_backend tcp
backend http
  mode http
  http-reuse never
  server one 127.0.0.1:${upstream.http}
backend h2
  mode http
  server one 127.0.0.1:${upstream.http}
backend tcp
  mode tcp
  server one 127.0.0.1:${upstream.tcp}
${extra}
`;
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: the agent replaces it
const CONFIG = '${CONFIG}';

/** What `sluice agent --command` needs for HAProxy: master-worker mode with sd_notify, SIGUSR1 for the soft stop. */
export const HAPROXY_COMMAND = {
  args: ['-Ws', '-f', CONFIG],
  check: ['-c', '-f', CONFIG],
  version: ['-v'],
  stopSignal: 'SIGUSR1',
} as const;
