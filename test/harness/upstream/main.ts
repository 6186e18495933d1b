import { startUpstream, type UpstreamPorts } from './server.ts';

/** The upstream as a process: `main.ts '{"http":..,"http2":..,"grpc":..,"tcp":..,"control":..}'`. */
const ports = JSON.parse(process.argv[2] ?? '{}') as UpstreamPorts;
const upstream = await startUpstream(ports);
process.once('SIGTERM', () => void upstream.close().then(() => process.exit(0)));
console.log('upstream ready');
