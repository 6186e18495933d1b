import { pino } from 'pino';
import { type ControllerConfig, resolveConfig } from './config.ts';
import { type Controller, openController } from './controller.ts';
import type { Log } from './log.ts';
import { SqliteStore } from './store/sqlite.ts';

export interface StartOptions {
  /** SIGTERM and SIGINT close it; off by default, for the process belongs to the caller. */
  readonly signals?: boolean;
  /** Instead of JSON lines on standard error. */
  readonly log?: Log;
}

export interface StartedController extends Controller {
  /** Settles when it has closed, by whatever cause. */
  readonly done: Promise<void>;
}

/** Reads the config, opens the state, serves. Throws a SluiceError. */
export async function startController(
  config: ControllerConfig,
  options: StartOptions = {},
): Promise<StartedController> {
  const resolved = resolveConfig(config);
  const log = options.log ?? pino({ level: resolved.logLevel, base: { component: 'controller' } }, pino.destination(2));
  const controller = await openController(resolved, new SqliteStore(resolved.state), log);
  const ended = Promise.withResolvers<void>();

  const onSignal = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'closing');
    void close();
  };
  const close = async (): Promise<void> => {
    process.off('SIGTERM', onSignal);
    process.off('SIGINT', onSignal);
    await controller.close();
    ended.resolve();
  };
  if (options.signals === true) {
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  }
  return { apiPort: controller.apiPort, xdsPort: controller.xdsPort, close, done: ended.promise };
}
