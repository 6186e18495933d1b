/** For servers written in Node: take the listen sockets over from the process that runs now. See docs/listen-fd.md. */
export {
  type DrainReport,
  type MigrateOptions,
  type Migration,
  migrate,
  type Place,
  type ServerAt,
} from './listen-fd/migrate.ts';
export type { ServerConnection } from './listen-fd/server-drain.ts';
export type { WarmUpAddress } from './listen-fd/warm-up.ts';
