import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export function envoyBinary(version: string): string {
  return process.env.ENVOY_BIN ?? join(homedir(), '.cache/sluice/envoy', version, 'envoy');
}

export function hasEnvoy(version: string): boolean {
  return existsSync(envoyBinary(version));
}

export interface XdsEnvoy {
  readonly admin: string;
  config(): Promise<string>;
  /** What Envoy wrote so far. */
  log(): string;
  stop(): Promise<void>;
}

export interface XdsEnvoyOptions {
  readonly dir: string;
  readonly version: string;
  readonly xdsPort: number;
  readonly adminPort: number;
  readonly api: 'GRPC' | 'DELTA_GRPC';
  readonly proxy: string;
  readonly epoch: number;
}

/** A lone Envoy (no hot restart) that takes everything over ADS. */
export function startXdsEnvoy(options: XdsEnvoyOptions): XdsEnvoy {
  const { dir } = options;
  mkdirSync(dir, { recursive: true });
  const ads = { ads: {}, resource_api_version: 'V3' };
  const bootstrap = {
    node: { id: options.proxy, cluster: 'test', metadata: { SLUICE_EPOCH: String(options.epoch), SLUICE_SLOT: 'a' } },
    admin: { address: socket(options.adminPort) },
    dynamic_resources: {
      ads_config: {
        api_type: options.api,
        transport_api_version: 'V3',
        grpc_services: [{ envoy_grpc: { cluster_name: 'xds' } }],
      },
      lds_config: ads,
      cds_config: ads,
    },
    layered_runtime: {
      layers: [
        { name: 'rtds', rtds_layer: { name: 'runtime', rtds_config: ads } },
        { name: 'admin', admin_layer: {} },
      ],
    },
    static_resources: {
      clusters: [
        {
          name: 'xds',
          type: 'STATIC',
          connect_timeout: '1s',
          typed_extension_protocol_options: {
            'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
              '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
              explicit_http_config: { http2_protocol_options: {} },
            },
          },
          load_assignment: {
            cluster_name: 'xds',
            endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(options.xdsPort) } }] }],
          },
        },
      ],
    },
  };
  const config = join(dir, 'bootstrap.json');
  const logFile = join(dir, 'envoy.log');
  writeFileSync(config, JSON.stringify(bootstrap));
  writeFileSync(logFile, '');
  const args = ['-c', config, '--disable-hot-restart', '--concurrency', '1', '--log-path', logFile, '-l', 'info'];
  const child = spawn(envoyBinary(options.version), args, { stdio: 'ignore' });
  const admin = `http://127.0.0.1:${options.adminPort}`;
  return {
    admin,
    config: async () => (await fetch(`${admin}/config_dump?include_eds`)).text(),
    log: () => readFileSync(logFile, 'utf8'),
    stop: () => stop(child),
  };
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await gone;
}

export function socket(port: number): object {
  return { socket_address: { address: '127.0.0.1', port_value: port } };
}

/** A self-signed certificate, PEM. */
export function certificate(dir: string): { cert: string; key: string } {
  mkdirSync(dir, { recursive: true });
  const [cert, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')];
  const subject = ['-subj', '/CN=localhost', '-days', '2'];
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', ...subject].concat(
      '-keyout',
      key,
      '-out',
      cert,
    ),
    { stdio: 'ignore' },
  );
  return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
}
