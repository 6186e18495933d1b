import http from 'node:http';
import http2 from 'node:http2';
import {
  type DrainReport,
  type MigrateOptions,
  type Migration,
  migrate,
  type ServerAt,
  type ServerConnection,
  type WarmUpAddress,
} from '@sluice/agent/listen-fd';

/** Compiled against the installed package: both forms of `migrate`, and the names of what goes in and comes out. */
export async function one(): Promise<ServerConnection[]> {
  const warmUp = async ({ host, port }: WarmUpAddress): Promise<void> => void [host.length, port.toFixed()];
  const migration: Migration = await migrate(http.createServer(), { socket: '/s', addresses: ['[::]:80'], warmUp });
  const report: DrainReport = await migration.drained;
  return [...report.left];
}

export async function several(options: MigrateOptions): Promise<boolean> {
  const servers: ServerAt[] = [
    { server: http.createServer(), addresses: ['127.0.0.1:80'] },
    { server: http2.createServer(), addresses: ['127.0.0.1:81'] },
  ];
  return (await migrate(servers, options)).takenOver;
}

// @ts-expect-error one server needs its addresses
export const noAddress = () => migrate(http.createServer(), { socket: '/s' });
// @ts-expect-error each of several has its own
export const sharedAddress = () => migrate([{ server: http.createServer() }], { socket: '/s', addresses: ['[::]:80'] });
