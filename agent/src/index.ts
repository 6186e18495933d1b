export { type Keeper, type KeeperConfig, startKeeper } from './keeper.ts';
export { jsonLog, type Log, type LogLevel } from './log.ts';
export { AGENT_VERSION } from './version.ts';
