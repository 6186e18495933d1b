import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

const run = promisify(execFile);
const INSTALL_MS = 300_000;

/** Debian's packages that a node is made of, and a file of each. */
const PACKAGES: Readonly<Record<string, string>> = {
  containerd: '/usr/bin/containerd',
  runc: '/usr/sbin/runc',
  'containernetworking-plugins': '/usr/lib/cni/bridge',
  'busybox-static': '/bin/busybox',
  iptables: '/usr/sbin/iptables',
};

/** Installs what is missing, if that is possible. Resolves with what is wrong, in one line; undefined when all is there. */
export async function installNodePackages(): Promise<string | undefined> {
  const missing = absent();
  if (missing.length === 0) return undefined;
  if (process.getuid?.() !== 0) return `${missing.join(', ')}: not installed, and only root may install them`;
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    await run('apt-get', ['update', '-q'], { timeout: INSTALL_MS, env });
    await run('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...missing], { timeout: INSTALL_MS, env });
  } catch (error) {
    return `${missing.join(', ')}: apt-get could not install them: ${(error as Error).message.split('\n', 1)}`;
  }
  return missingNodePackages();
}

/** Undefined when a node can run here; otherwise the line that a test says before it is skipped. */
export function missingNodePackages(): string | undefined {
  if (process.getuid?.() !== 0) return 'a node needs root';
  const missing = absent();
  return missing.length === 0 ? undefined : `${missing.join(', ')}: not installed`;
}

function absent(): string[] {
  return Object.keys(PACKAGES).filter((name) => !existsSync(PACKAGES[name] ?? ''));
}
