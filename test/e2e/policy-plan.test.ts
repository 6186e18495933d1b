import { afterEach, expect, test } from 'vitest';
import { selfSigned } from '../harness/certificate.ts';
import { envoyBinary } from '../harness/envoy-bin.ts';
import { type Mesh, meshResources, startMesh } from '../harness/mesh.ts';
import { until } from '../harness/process.ts';
import { sluice } from '../harness/sluice.ts';
import { replaceResources } from './policy-rig.ts';

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

const TYPE = 'type.googleapis.com/envoy.extensions.';

type Chain = { readonly filters: readonly { readonly name: string; readonly typed_config: object }[] };

/** The mesh's own, with limits that Envoy keeps per process, and a TLS listener without ticket keys. */
function limited(of: Mesh, tlsPort: number): object[] {
  const bucket = (tokens: number) => ({ max_tokens: tokens, tokens_per_fill: tokens, fill_interval: '1s' });
  const network = {
    '@type': `${TYPE}filters.network.local_ratelimit.v3.LocalRateLimit`,
    stat_prefix: 'limited',
    token_bucket: bucket(1_000),
  };
  const http = {
    '@type': `${TYPE}filters.http.local_ratelimit.v3.LocalRateLimit`,
    stat_prefix: 'requests',
    token_bucket: bucket(5_000),
  };
  const { certificate, key } = selfSigned('plan.sluice.test');
  const tls = {
    '@type': `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`,
    common_tls_context: {
      tls_certificates: [{ certificate_chain: { inline_string: certificate }, private_key: { inline_string: key } }],
    },
  };
  const resources = meshResources(of.port, of.upstreamPort, 1) as ({ '@type': string } & Record<string, unknown>)[];
  return resources.flatMap((one): object[] => {
    if (one['@type'].endsWith('.Cluster')) {
      const thresholds = [
        { max_connections: 100, max_requests: 500 },
        { priority: 'HIGH', max_connections: 20 },
      ];
      return [{ ...one, circuit_breakers: { thresholds } }];
    }
    if (!one['@type'].endsWith('.Listener')) return [one];
    const [chain] = one.filter_chains as [Chain];
    const [hcm] = chain.filters;
    const config = hcm?.typed_config as { http_filters: object[] };
    const filters = [
      { name: 'connections', typed_config: network },
      {
        ...hcm,
        typed_config: { ...config, http_filters: [{ name: 'requests', typed_config: http }, ...config.http_filters] },
      },
    ];
    const secure = { filters, transport_socket: { name: 'tls', typed_config: tls } };
    const address = { socket_address: { address: '127.0.0.1', port_value: tlsPort } };
    return [
      { ...one, filter_chains: [{ filters }] },
      { ...one, name: 'secure', address, filter_chains: [secure] },
    ];
  });
}

test.each(['1.36.4', '1.38.3', '1.40.0'])('%s: plan names what is counted once in each epoch', async (version) => {
  mesh = await startMesh({ envoy: await envoyBinary(version) });
  const { controller, port } = mesh;
  replaceResources(mesh, limited(mesh, await mesh.block.port()));
  await until('the limited listener answers', async () => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } });
    await response.text();
    return response.headers.get('x-revision') === '1' ? true : undefined;
  });
  const to = await envoyBinary(version === '1.40.0' ? '1.39.3' : '1.40.0');
  const { exit, out } = await until('the new listeners are there', async () => {
    const plan = await sluice(controller.url, 'plan', 'edge', '--to', to);
    return plan.out.includes('listener secure') ? plan : undefined;
  });
  expect(exit).toBe(0);
  for (const line of [
    '! circuit-breakers: cluster up: max_connections 100 (up to 200 while both live), max_requests 500 (up to 1000 while both live) in each epoch',
    '! circuit-breakers: cluster up (priority high): max_connections 20 (up to 40 while both live) in each epoch',
    '! rate-limits: listener in: local rate limit connections: 1000 connections per 1s in each epoch, so up to 2000 while both live',
    '! rate-limits: listener in: local rate limit requests: 5000 requests per 1s in each epoch, so up to 10000 while both live',
    '! sessions: listener secure: no session_ticket_keys',
  ]) {
    expect(out).toContain(line);
  }
  expect(out).toMatch(/ {2}memory: the serving epoch holds \d+ MiB of its own/);
  expect(out).not.toContain('sluice_agent');
  expect(out).not.toContain('not everything could be read');
});
