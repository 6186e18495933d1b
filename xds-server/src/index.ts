export { type ControllerConfig, resolveConfig } from './config.ts';
export { type StartedController, type StartOptions, startController } from './main.ts';
export { STORE_CONFORMANCE } from './store/conformance.ts';
export type { AgentRow, Store, Stored } from './store/store.ts';
export { CONTROLLER_VERSION } from './version.ts';
