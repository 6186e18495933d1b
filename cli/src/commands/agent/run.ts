import { findPlace } from '@sluice/agent/handoff/slot';
import { type PolicyPatch, SluiceError } from '@sluice/contract';
import { Command, Option } from 'commander';
import { applyConfigFile, configOption } from '../../lib/config-file.ts';
import { readObject, readText } from '../../lib/files.ts';
import { type LogLevel, logOption } from '../../lib/log.ts';
import { dirOption, duration, needDir, seconds, whole } from '../../lib/options.ts';
import type { Plan } from '../../program.ts';
import { exitOfEnd } from './end.ts';

interface Options {
  readonly transient?: boolean;
  readonly command?: string | object;
  readonly proxy?: string;
  readonly slot?: string;
  readonly dir?: string;
  readonly shared?: string;
  readonly envoy?: string;
  readonly envoys?: string;
  readonly bootstrap?: string;
  readonly controller?: readonly string[];
  readonly xds?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly label?: readonly string[];
  readonly baseId?: number;
  readonly concurrency?: number;
  readonly hotRestart?: boolean;
  readonly statusAddress?: string;
  readonly policy?: string | PolicyPatch;
  readonly watch?: readonly string[];
  readonly startTimeout?: number;
  readonly drainTimeS?: number;
  readonly terminationDrain?: number;
  readonly terminationGrace?: number;
  readonly terminationLog?: string;
  readonly podinfo?: string;
  readonly logLevel: LogLevel;
}

export function keeperCommand(plan: Plan): Command {
  const command: Command = new Command('agent')
    .description('keep the Envoys of one proxy: start, upgrade, drain, and relaunch after a crash')
    .addOption(new Option('--proxy <name>', 'name of the proxy; the node id of its Envoys').env('SLUICE_PROXY'))
    .addOption(
      new Option(
        '--slot <slot>',
        'which of the agents of the proxy this is (default: by the name of the container, else 1)',
      ).env('SLUICE_SLOT'),
    )
    .addOption(dirOption())
    .addOption(new Option('--shared <folder>', 'folder shared with the agent of the other slot').env('SLUICE_SHARED'))
    .addOption(
      new Option('--envoy <version>', 'Envoy to start with: a version below --envoys, or a path').env('SLUICE_ENVOY'),
    )
    .addOption(new Option('--envoys <folder>', 'folder with VERSION/envoy').env('SLUICE_ENVOYS'))
    .addOption(new Option('--bootstrap <file>', "Envoy's bootstrap, YAML or JSON").env('SLUICE_BOOTSTRAP'))
    .addOption(
      new Option('--controller <url...>', "controllers' API addresses, tried in turn; none: decide alone").env(
        'SLUICE_CONTROLLER',
      ),
    )
    .addOption(new Option('--xds <host:port>', "the controller's xDS address as Envoy reaches it").env('SLUICE_XDS'))
    .addOption(new Option('--token <token>', 'proves this agent to the controller').env('SLUICE_TOKEN'))
    .addOption(new Option('--token-file <file>', 'the same, out of a file').env('SLUICE_TOKEN_FILE').conflicts('token'))
    .addOption(
      new Option('--label <key=value...>', 'what rollouts select and spread by, such as zone=a').env('SLUICE_LABEL'),
    )
    .addOption(
      new Option('--base-id <number>', "Envoy's --base-id (default: made of the folder)")
        .env('SLUICE_BASE_ID')
        .argParser(whole(0, 214_748_364)),
    )
    .addOption(
      new Option('--concurrency <number>', "Envoy's worker threads, the same for all epochs (default: the cores)")
        .env('SLUICE_CONCURRENCY')
        .argParser(whole(1, 1_024)),
    )
    .addOption(
      new Option(
        '--no-hot-restart',
        'start every Envoy with --disable-hot-restart; upgrades take the method reuse-port',
      ),
    )
    .addOption(
      new Option('--status-address <host:port>', 'serve /livez, /readyz and /metrics there').env(
        'SLUICE_STATUS_ADDRESS',
      ),
    )
    .addOption(new Option('--policy <file>', 'drain policy to lay over the default, YAML or JSON').env('SLUICE_POLICY'))
    .addOption(
      new Option('--watch <file...>', 'further files whose change is a reason for a hot restart').env('SLUICE_WATCH'),
    )
    .addOption(
      new Option('--start-timeout <duration>', 'longest time for a new epoch to serve (default: 2m)')
        .env('SLUICE_START_TIMEOUT')
        .argParser(duration),
    )
    .addOption(
      new Option(
        '--drain-time-s <seconds>',
        "Envoy's own: how long connections of a listener live on that an LDS update replaces (default: 600)",
      )
        .env('SLUICE_DRAIN_TIME_S')
        .argParser(Number),
    )
    .addOption(
      new Option(
        '--termination-drain <duration>',
        'longest drain on SIGTERM of what serves (default: what the grace allows, else 10m)',
      )
        .env('SLUICE_TERMINATION_DRAIN')
        .argParser(duration),
    )
    .addOption(
      new Option(
        '--termination-grace <seconds>',
        "the Pod's terminationGracePeriodSeconds: an end is over before it (default: nobody kills by the clock)",
      )
        .env('SLUICE_TERMINATION_GRACE_S')
        .argParser(seconds),
    )
    .addOption(
      new Option('--termination-log <file>', 'for a last word; as terminationMessagePath').env(
        'SLUICE_TERMINATION_LOG',
      ),
    )
    .addOption(new Option('--podinfo <file>', "downward API file of the Pod's annotations").env('SLUICE_PODINFO'))
    .addOption(
      new Option(
        '--command <file>',
        'keep a proxy that is not Envoy: how to start, check and stop it (docs/listen-fd.md); --envoy is its binary, --bootstrap its configuration',
      ).env('SLUICE_COMMAND'),
    )
    .addOption(logOption())
    .addOption(configOption());
  command.option(
    '--transient',
    'become Envoy and leave nothing resident; an upgrade is another start with --transient (a crash then refuses connections)',
  );
  return command.action(() =>
    plan(async (io) => {
      await applyConfigFile(command);
      const options = command.opts<Options>();
      const config = await keeperFields(options);
      // Only here: a keeper is no small thing to load, and nothing else of the command needs one.
      const { jsonLog } = await import('@sluice/agent/log');
      const log = jsonLog(options.logLevel, (line) => io.err.write(line), { proxy: config.proxy, slot: config.slot });
      if (options.transient === true) {
        const { becomeEpoch } = await import('@sluice/agent/transient/index');
        return becomeEpoch({ ...config, log });
      }
      if (options.command !== undefined) {
        const { command: given } = options;
        const spec = typeof given === 'string' ? await readObject(given, '--command') : given;
        const { startCommandKeeper } = await import('@sluice/agent/listen-fd/command/index');
        const kept = await startCommandKeeper({ ...config, log }, spec);
        await kept.done;
        return 0;
      }
      const { startKeeper } = await import('@sluice/agent/keeper');
      const keeper = await startKeeper({ ...config, log });
      return exitOfEnd(await keeper.done, config.terminationLog);
    }),
  );
}

/** The keeper's configuration, all but its log. Throws CONFIG_INVALID for what is missing. */
export async function keeperFields(options: Options) {
  const need = (value: string | undefined, flag: string): string => {
    if (value !== undefined && value !== '') return value;
    throw new SluiceError('CONFIG_INVALID', `expected ${flag}, found none`, {
      hint: `give it by ${flag}, in --config, or by SLUICE_${flag.slice(2).toUpperCase()}`,
    });
  };
  const policy = typeof options.policy === 'string' ? await readObject(options.policy, '--policy') : options.policy;
  const token = options.tokenFile === undefined ? options.token : readText(options.tokenFile, '--token-file').trim();
  const { slot, container } = findPlace({ ...process.env, ...(options.slot && { SLUICE_SLOT: options.slot }) });
  const podinfo =
    options.podinfo !== undefined && container !== undefined ? { file: options.podinfo, container } : undefined;
  const optional = {
    shared: options.shared,
    envoys: options.envoys,
    xds: options.xds,
    token,
    labels: labelsOf(options),
    baseId: options.baseId,
    concurrency: options.concurrency,
    hotRestart: options.hotRestart === false ? false : undefined,
    statusAddress: options.statusAddress,
    policy: policy as PolicyPatch | undefined,
    watch: options.watch && splitList(options.watch),
    startTimeoutMs: options.startTimeout,
    drainTimeS: options.drainTimeS,
    terminationDrainMs: options.terminationDrain,
    terminationGraceMs: options.terminationGrace,
    terminationLog: options.terminationLog ?? (container === undefined ? undefined : '/dev/termination-log'),
    podinfo,
  };
  return {
    proxy: need(options.proxy ?? podName(), '--proxy'),
    slot,
    dir: needDir({ ...options, slot }),
    envoy: need(options.envoy, '--envoy'),
    bootstrap: need(options.bootstrap, '--bootstrap'),
    controllers: controllerUrls(options.controller ?? []),
    ...(Object.fromEntries(Object.entries(optional).filter(([, v]) => v !== undefined)) as Defined<typeof optional>),
  };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** From the environment a list comes as one text. */
/** In a Pod, by the downward API: the name under which the controller looks for its proxy (xds-server/src/kube/words.ts). */
function podName({ POD_NAME, POD_NAMESPACE } = process.env): string | undefined {
  return POD_NAME && POD_NAMESPACE ? `${POD_NAME}.${POD_NAMESPACE}` : undefined;
}

/** The uid tells the Pod from another one of its name. */
function labelsOf({ label }: Options, { POD_UID } = process.env): Record<string, string> | undefined {
  if (label === undefined && !POD_UID) return undefined;
  return { ...(POD_UID && { 'sluice.dev/pod-uid': POD_UID }), ...readLabels(splitList(label ?? [])) };
}

/** `zone=a`, as Kubernetes writes labels. */
function readLabels(values: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    values.map((text) => {
      const [, key, value] = /^([^=]{1,253})=(.{1,253})$/.exec(text) ?? [];
      if (key !== undefined && value !== undefined) return [key, value];
      throw new SluiceError('CONFIG_INVALID', `--label: expected key=value, found ${JSON.stringify(text)}`);
    }),
  );
}

function splitList(values: readonly string[]): string[] {
  return [values]
    .flat(2)
    .flatMap((v) => v.split(','))
    .map((v) => v.trim())
    .filter((v) => v !== '');
}

function controllerUrls(values: readonly string[]): string[] {
  const urls = splitList(values);
  for (const url of urls) {
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new SluiceError(
        'CONFIG_INVALID',
        `--controller: expected a URL http://host:port, found ${JSON.stringify(url)}`,
      );
    }
  }
  return urls;
}
