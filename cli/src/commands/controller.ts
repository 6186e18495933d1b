import { parsePolicy, SluiceError } from '@sluice/contract';
import type { ControllerConfig } from '@sluice/xds-server';
import type { WebhookConfig } from '@sluice/xds-server/inject/webhook-config';
import { Command, Option } from 'commander';
import { applyConfigFile, configOption } from '../lib/config-file.ts';
import { readObject, readText } from '../lib/files.ts';
import { type LogLevel, logOption } from '../lib/log.ts';
import type { Plan } from '../program.ts';

interface Options {
  readonly listen?: string;
  readonly xds?: string;
  readonly resources?: string;
  readonly state?: string;
  readonly tokens?: string | Record<string, string>;
  readonly tokenFile?: string;
  readonly policy?: string | Record<string, unknown>;
  readonly metrics?: string | Record<string, unknown>;
  readonly kube?: boolean;
  readonly kubeconfig?: string;
  readonly kubeNamespace?: string;
  readonly kubeWatch?: string;
  readonly kubeLease?: string;
  readonly kubeInject?: string | Record<string, unknown>;
  readonly logLevel: LogLevel;
}

export function controllerCommand(plan: Plan): Command {
  const command: Command = new Command('controller')
    .description('run the controller: xDS server, drain orders, upgrades and their record, API')
    .addOption(
      new Option('--listen <host:port>', 'API, metrics and agents (default: 127.0.0.1:18080)').env('SLUICE_LISTEN'),
    )
    .addOption(new Option('--xds <host:port>', 'xDS over gRPC (default: 127.0.0.1:18000)').env('SLUICE_XDS_LISTEN'))
    .addOption(new Option('--resources <folder>', "resource files in Envoy's form").env('SLUICE_RESOURCES'))
    .addOption(new Option('--state <file>', 'SQLite file of the state (default: sluice.db)').env('SLUICE_STATE'))
    .addOption(
      new Option('--tokens <token>', 'token of all agents; in --config also a map proxy: token').env('SLUICE_TOKENS'),
    )
    .addOption(
      new Option('--token-file <file>', 'the token out of a file').env('SLUICE_TOKEN_FILE').conflicts('tokens'),
    )
    .addOption(new Option('--policy <file>', 'drain policy to lay over the default, YAML or JSON').env('SLUICE_POLICY'))
    .addOption(new Option('--metrics <file>', 'a Prometheus that judges rollouts, YAML or JSON').env('SLUICE_METRICS'))
    .addOption(new Option('--kube', 'carry out HotUpgrades of the cluster that this Pod is in').env('SLUICE_KUBE'))
    .addOption(new Option('--kubeconfig <file>', 'or of that one; implies --kube').env('SLUICE_KUBECONFIG'))
    .addOption(
      new Option('--kube-namespace <name>', "of the Lease and the state (default: the Pod's, else the context's)").env(
        'SLUICE_KUBE_NAMESPACE',
      ),
    )
    .addOption(
      new Option('--kube-watch <namespace>', 'HotUpgrades of this namespace only (default: of all)').env(
        'SLUICE_KUBE_WATCH',
      ),
    )
    .addOption(
      new Option('--kube-lease <name>', 'Lease of the leader (default: sluice-controller)').env('SLUICE_KUBE_LEASE'),
    )
    .addOption(
      new Option('--kube-inject <file>', 'inject Pods as this file says (docs/injection.md)').env('SLUICE_KUBE_INJECT'),
    )
    .addOption(logOption())
    .addOption(configOption());
  return command.action(() =>
    plan(async () => {
      await applyConfigFile(command);
      const fields = await controllerFields(command.opts<Options>());
      // Only here: the xDS server takes a few hundred milliseconds to load.
      const { startController } = await import('@sluice/xds-server');
      const controller = await startController(fields, { signals: true });
      await controller.done;
      return 0;
    }),
  );
}

export async function controllerFields(options: Options) {
  const policy = typeof options.policy === 'string' ? await readObject(options.policy, '--policy') : options.policy;
  parsePolicy(policy);
  const metrics =
    typeof options.metrics === 'string' ? await readObject(options.metrics, '--metrics') : options.metrics;
  const tokens = options.tokenFile === undefined ? options.tokens : readText(options.tokenFile, '--token-file').trim();
  return {
    logLevel: options.logLevel,
    ...(options.listen !== undefined && { apiAddress: options.listen }),
    ...(options.xds !== undefined && { xdsAddress: options.xds }),
    ...(options.resources !== undefined && { resources: options.resources }),
    ...(options.state !== undefined && { state: options.state }),
    ...(tokens !== undefined && { tokens }),
    ...(policy !== undefined && { policy }),
    // What it is made of is checked by the controller.
    ...(metrics !== undefined && { metrics: metrics as ControllerConfig['metrics'] }),
    ...(await kubernetesFields(options)),
  };
}

async function kubernetesFields(options: Options) {
  const { kube, kubeconfig, kubeNamespace, kubeWatch, kubeLease, kubeInject } = options;
  if (kube !== true && kubeconfig === undefined) {
    const [name] =
      Object.entries({ kubeNamespace, kubeWatch, kubeLease, kubeInject }).find(([, value]) => value !== undefined) ??
      [];
    if (name === undefined) return {};
    throw new SluiceError('CONFIG_INVALID', `${name}: expected --kube or --kubeconfig with it, found neither`);
  }
  const injection = typeof kubeInject === 'string' ? await readObject(kubeInject, '--kube-inject') : kubeInject;
  const kubernetes = {
    ...(kubeconfig !== undefined && { kubeconfig }),
    ...(kubeNamespace !== undefined && { namespace: kubeNamespace }),
    ...(kubeWatch !== undefined && { watch: kubeWatch }),
    ...(kubeLease !== undefined && { lease: kubeLease }),
    // What it is made of is checked by the controller.
    ...(injection !== undefined && { injection: injection as unknown as WebhookConfig }),
  };
  return { kubernetes };
}
