import { isIPv6 } from 'node:net';
import { type Injection, PORTS, SIDECAR_USER } from './config.ts';

type Interception = Injection['interception'];

/**
 * The script of the init container: all inbound TCP but the exceptions to Envoy's inbound port, all outbound but Envoy's own, that
 * of loopback and the exceptions to its outbound port. As istio-iptables does it with `-p 15001 -z 15006 -u 1337 -m REDIRECT
 * -i * -b * -d PORTS -x RANGES -o PORTS`. An init container may be run again (Kubernetes says so): so the rules are in chains of
 * our own, which are emptied first, and the jumps to them are made once. Every value was checked to be a port or an address.
 */
export function redirectScript(interception: Interception): string {
  return interception.families.flatMap((family) => rules(interception, family === 'IPv6')).join('\n');
}

function rules(interception: Interception, six: boolean): string[] {
  // Others may hold the lock of the tables for a moment: the kubelet's port mappings.
  const table = `${six ? 'ip6tables' : 'iptables'} -w 5 -t nat`;
  const chain = (name: string) => `${table} -N ${name} 2>/dev/null || ${table} -F ${name}`;
  const jump = (from: string, name: string) => {
    const rule = `${from} -p tcp -j ${name}`;
    return `${table} -C ${rule} 2>/dev/null || ${table} -A ${rule}`;
  };
  const add = (name: string, match: string, target: string) =>
    [`${table} -A ${name}`, ...(match === '' ? [] : [match]), `-j ${target}`].join(' ');
  const to = (port: number) => `REDIRECT --to-ports ${port}`;
  const mine = (ranges: readonly string[]) => ranges.filter((one) => isIPv6(one.split('/')[0] ?? '') === six);
  const { includeInboundPorts: inbound, includeOutboundRanges: outbound } = interception;
  const spared = [...new Set([PORTS.status, ...interception.excludeInboundPorts])];
  return [
    chain('SLUICE_INBOUND'),
    ...spared.map((port) => add('SLUICE_INBOUND', `-p tcp --dport ${port}`, 'RETURN')),
    ...(inbound === '*'
      ? [add('SLUICE_INBOUND', '-p tcp', to(PORTS.inbound))]
      : inbound.map((port) => add('SLUICE_INBOUND', `-p tcp --dport ${port}`, to(PORTS.inbound)))),
    chain('SLUICE_OUTBOUND'),
    add('SLUICE_OUTBOUND', `-m owner --uid-owner ${SIDECAR_USER}`, 'RETURN'),
    add('SLUICE_OUTBOUND', `-d ${six ? '::1/128' : '127.0.0.0/8'}`, 'RETURN'),
    ...interception.excludeOutboundPorts.map((port) => add('SLUICE_OUTBOUND', `-p tcp --dport ${port}`, 'RETURN')),
    ...mine(interception.excludeOutboundRanges).map((range) => add('SLUICE_OUTBOUND', `-d ${range}`, 'RETURN')),
    ...(outbound === '*'
      ? [add('SLUICE_OUTBOUND', '-p tcp', to(PORTS.outbound))]
      : mine(outbound).map((range) => add('SLUICE_OUTBOUND', `-p tcp -d ${range}`, to(PORTS.outbound)))),
    // Last: until here nothing is redirected.
    jump('PREROUTING', 'SLUICE_INBOUND'),
    jump('OUTPUT', 'SLUICE_OUTBOUND'),
  ];
}
