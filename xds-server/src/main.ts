import { pino } from 'pino';
import { type ControllerConfig, type ResolvedConfig, resolveConfig } from './config.ts';
import { type Controller, type ControllerParts, openController } from './controller.ts';
import { kubeAccess } from './kube/kube-controller.ts';
import type { Log } from './log.ts';
import { KubeMembers } from './replicas/kube-members.ts';
import { replicaAddresses, replicaId } from './replicas/self.ts';
import { ResourceStore } from './store/resource-store.ts';
import { SqliteStore } from './store/sqlite.ts';
import type { Store } from './store/store.ts';

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
  const { store, parts } = partsOf(resolved, log);
  const controller = await openController(resolved, store, log, parts);
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

/** In Kubernetes the state is in resources, unless a file is given. */
function partsOf({ api, state, kubernetes }: ResolvedConfig, log: Log): { store: Store; parts: ControllerParts } {
  if (kubernetes === undefined) return { store: new SqliteStore(state ?? ':memory:'), parts: {} };
  const { replica: config = {} } = kubernetes;
  const { env } = process;
  const id = replicaId({ config, env });
  const access = kubeAccess(kubernetes);
  let fence: () => number | undefined = () => undefined;
  const store =
    state === undefined
      ? new ResourceStore({ client: access.client, namespace: access.namespace, log, fence: () => fence() })
      : new SqliteStore(state);
  const fenced = (told: () => number | undefined): void => {
    fence = told;
  };
  const kube = { config: kubernetes, access, fenced };
  // A file is one controller's own.
  if (state !== undefined) return { store, parts: { kube } };
  const { client, namespace } = access;
  const { leaseSeconds } = config;
  const membership = new KubeMembers(client, {
    namespace,
    id,
    log,
    ...(leaseSeconds !== undefined && { leaseSeconds }),
  });
  const addresses = replicaAddresses({ config, apiHost: api.host, env });
  return { store, parts: { kube, membership, addresses } };
}
