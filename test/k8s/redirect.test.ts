import { spawnSync } from 'node:child_process';
import { type InjectionConfig, parseInjection } from '@sluice/xds-server/inject/config';
import { redirectScript } from '@sluice/xds-server/inject/redirect';
import { expect, test } from 'vitest';
import { missingNodePackages } from '../harness/k8s/debian.ts';

const missing = missingNodePackages();
if (missing !== undefined) console.log(`skipped: ${missing}`);
const it = test.skipIf(missing !== undefined);

/** The rules of a new network namespace after the init container has run there, twice. */
function rules(interception: InjectionConfig['interception'], show: string): string[] {
  const config = parseInjection({ image: 'mesh/proxy:1', emptyImage: 'mesh/empty:1', interception });
  const script = redirectScript(config.interception);
  const { stdout, stderr, status } = spawnSync(
    'unshare',
    ['-n', 'sh', '-ec', `${script}\n${script}\n${show} -t nat -S`],
    {
      encoding: 'utf8',
      timeout: 20_000,
    },
  );
  expect([status, stderr]).toEqual([0, '']);
  return stdout.split('\n').filter((line) => line.startsWith('-A'));
}

it('run again, the init container leaves the same rules', () => {
  const excluded = { excludeOutboundRanges: ['10.96.0.1'], excludeOutboundPorts: [53] };
  expect(rules({ ...excluded, excludeInboundPorts: [9090] }, 'iptables')).toEqual([
    '-A PREROUTING -p tcp -j SLUICE_INBOUND',
    '-A OUTPUT -p tcp -j SLUICE_OUTBOUND',
    '-A SLUICE_INBOUND -p tcp -m tcp --dport 15021 -j RETURN',
    '-A SLUICE_INBOUND -p tcp -m tcp --dport 9090 -j RETURN',
    '-A SLUICE_INBOUND -p tcp -j REDIRECT --to-ports 15006',
    '-A SLUICE_OUTBOUND -m owner --uid-owner 1337 -j RETURN',
    '-A SLUICE_OUTBOUND -d 127.0.0.0/8 -j RETURN',
    '-A SLUICE_OUTBOUND -p tcp -m tcp --dport 53 -j RETURN',
    '-A SLUICE_OUTBOUND -d 10.96.0.1/32 -j RETURN',
    '-A SLUICE_OUTBOUND -p tcp -j REDIRECT --to-ports 15001',
  ]);
});

it('of both families, each with its own addresses; some ports and blocks alone', () => {
  const families = ['IPv4', 'IPv6'] as ('IPv4' | 'IPv6')[];
  const some = { includeInboundPorts: [8080], includeOutboundRanges: ['10.0.0.0/8', 'fd00::/8'] };
  const jumps = ['-A PREROUTING -p tcp -j SLUICE_INBOUND', '-A OUTPUT -p tcp -j SLUICE_OUTBOUND'];
  const inbound = [
    '-A SLUICE_INBOUND -p tcp -m tcp --dport 15021 -j RETURN',
    '-A SLUICE_INBOUND -p tcp -m tcp --dport 15090 -j RETURN',
    '-A SLUICE_INBOUND -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 15006',
  ];
  const outbound = (loopback: string, block: string) => [
    '-A SLUICE_OUTBOUND -m owner --uid-owner 1337 -j RETURN',
    `-A SLUICE_OUTBOUND -d ${loopback} -j RETURN`,
    `-A SLUICE_OUTBOUND -d ${block} -p tcp -j REDIRECT --to-ports 15001`,
  ];
  expect(rules({ families, ...some }, 'iptables')).toEqual([
    ...jumps,
    ...inbound,
    ...outbound('127.0.0.0/8', '10.0.0.0/8'),
  ]);
  expect(rules({ families, ...some }, 'ip6tables')).toEqual([...jumps, ...inbound, ...outbound('::1/128', 'fd00::/8')]);
});
