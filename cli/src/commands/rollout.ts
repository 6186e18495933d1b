import {
  type CreateRollout,
  isRolloutOver,
  parseAnalysis,
  parseSelector,
  parseStrategy,
  ROLLOUT_VERBS,
  type RolloutStrategy,
  type RolloutVerb,
  type RolloutView,
  SluiceError,
} from '@sluice/contract';
import { Command, Option } from 'commander';
import type { ApiClient } from '../lib/api-client.ts';
import { readObject } from '../lib/files.ts';
import { followRollout } from '../lib/follow-rollout.ts';
import { type Io, print } from '../lib/io.ts';
import { client, controllerOption, duration, timeoutOption } from '../lib/options.ts';
import { type Column, type Format, outputOption, printData, printList } from '../lib/output.ts';
import { policyOption, readPolicy, type TargetOptions, target, targetOptions } from '../lib/target.ts';
import { formatSpan } from '../lib/time.ts';
import type { Plan } from '../program.ts';
import { entryLine, haveIt, rolloutLines } from '../view/rollout.ts';

interface Common {
  readonly controller: string;
  readonly output: Format;
  readonly wait?: boolean;
  readonly timeout: number;
}

interface CreateOptions extends Common, TargetOptions {
  readonly label?: readonly string[];
  readonly file?: string;
  readonly policy?: string;
  readonly partition?: string;
  readonly maxUnavailable?: string;
  readonly canary?: string;
  readonly batches?: string;
  readonly pause?: number;
  readonly manual?: boolean;
  readonly spread?: string;
  readonly onFailure?: 'pause' | 'rollback';
}

const WHAT: Readonly<Record<RolloutVerb, string>> = {
  pause: 'start nothing more until it is resumed',
  resume: 'go on; members that failed get another turn',
  promote: 'begin the next stage now',
  rollback: 'flip back everything that it changed',
  abort: 'give it up: what is on its way is ended, what serves stays',
};

export function rolloutCommand(plan: Plan): Command {
  const command = new Command('rollout').description('upgrade a fleet: canary first, in batches, with analysis');
  command.addCommand(createCommand(plan));
  command.addCommand(getCommand(plan));
  for (const verb of ROLLOUT_VERBS) command.addCommand(verbCommand(plan, verb));
  return command;
}

function createCommand(plan: Plan): Command {
  const command = targetOptions(
    new Command('create').description('begin a rollout').argument('[proxies...]', 'names, or globs such as `edge-*`'),
  );
  return waits(command)
    .option('--label <key=value...>', 'only proxies whose agents have these labels')
    .option('--file <file>', 'selector, strategy and analysis, YAML or JSON; flags win over it')
    .addOption(policyOption())
    .option('--partition <n>', 'so many keep their version; a number or a percentage')
    .option('--max-unavailable <n>', 'so many at most are in their upgrade at once (default: 1)')
    .option('--canary <n>', 'so many go first and alone; 0 for none (default: 1)')
    .option('--batches <list>', 'stages after it as sums, such as 25%,50%')
    .addOption(new Option('--pause <duration>', 'stand still after each stage').argParser(duration))
    .option('--manual', 'after each stage wait for `sluice rollout promote`')
    .option('--spread <label>', 'give the values of this label (zones) their turns evenly')
    .addOption(new Option('--on-failure <what>', 'when the analysis fails').choices(['pause', 'rollback']))
    .action((proxies: string[], options: CreateOptions) =>
      plan(async (io) => {
        const request = await requestOf(proxies, options);
        const api = client(options);
        return answer(io, api, await api.createRollout(request), options, 'Done');
      }),
    );
}

async function requestOf(proxies: readonly string[], options: CreateOptions): Promise<CreateRollout> {
  const file = options.file === undefined ? {} : ((await readObject(options.file, '--file')) as Partial<CreateRollout>);
  const policy = await readPolicy(options.policy);
  const labels = Object.fromEntries((options.label ?? []).map(pair));
  const selector = {
    ...file.selector,
    ...(proxies.length > 0 && { proxies }),
    ...(options.label !== undefined && { labels }),
  };
  const { partition, maxUnavailable, canary, batches, pause, manual, spread, onFailure } = options;
  const strategy: Partial<RolloutStrategy> = {
    ...file.strategy,
    ...(partition !== undefined && { partition }),
    ...(maxUnavailable !== undefined && { maxUnavailable }),
    ...(canary !== undefined && { canary }),
    ...(batches !== undefined && { batches: batches.split(',') }),
    ...(pause !== undefined && { pauseBetweenMs: pause }),
    ...(manual === true && { promotion: 'manual' }),
    ...(spread !== undefined && { spread }),
  };
  const analysis = { ...file.analysis, ...(onFailure !== undefined && { onFailure }) };
  // Checked here too, so that a misspelt field is told before anything is sent.
  return {
    ...target(options),
    selector: parseSelector(selector),
    strategy: parseStrategy(strategy),
    analysis: parseAnalysis(analysis),
    ...(policy === undefined ? file.policy !== undefined && { policy: file.policy } : { policy }),
  };
}

function pair(text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw new SluiceError('CONFIG_INVALID', `--label: expected key=value, found ${JSON.stringify(text)}`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function getCommand(plan: Plan): Command {
  return new Command('get')
    .description('show rollouts, or one with its members and its record')
    .argument('[rollout]', 'its id')
    .option('-w, --watch', 'follow it to its end')
    .addOption(timeoutOption('24h'))
    .addOption(controllerOption())
    .addOption(outputOption())
    .action((id: string | undefined, options: Common & { readonly watch?: boolean }) =>
      plan(async (io) => {
        const api = client(options);
        if (id === undefined && options.watch !== true) return list(io, api, options.output);
        const view = id === undefined ? await newest(api) : await api.rollout(id);
        if (options.watch === true) return follow(io, api, view, options, 'Done');
        if (await printData(io, options.output, view)) return 0;
        if (options.output === 'name') print(io, view.id);
        else print(io, [...rolloutLines(view, Date.now()), ...(view.record ?? []).map(entryLine)].join('\n'));
        return 0;
      }),
    );
}

async function newest(api: ApiClient): Promise<RolloutView> {
  const all = await api.rollouts();
  const found = all.find((one) => !isRolloutOver(one.phase)) ?? all[0];
  if (found === undefined) throw new SluiceError('ROLLOUT_UNKNOWN', 'expected a rollout, found none');
  return found;
}

async function list(io: Io, api: ApiClient, format: Format): Promise<number> {
  const items = await api.rollouts();
  const now = Date.now();
  const columns: Column<RolloutView>[] = [
    { title: 'ROLLOUT', of: (r) => r.id },
    { title: 'PHASE', of: (r) => r.phase },
    { title: 'TO', of: (r) => r.spec.target.to },
    { title: 'STAGE', of: (r) => `${r.stage.index + 1}/${r.stage.count}` },
    { title: 'UPGRADED', of: (r) => `${haveIt(r)}/${r.summary.total}` },
    { title: 'FAILED', of: (r) => String(r.summary.failed + r.summary.stuck) },
    { title: 'AGE', of: (r) => formatSpan(now - r.createdAt) },
    { title: 'REASON', of: (r) => r.reason, wide: true },
  ];
  await printList(io, format, items, { columns, name: (r) => r.id, whole: { items }, empty: 'no rollouts yet' });
  return 0;
}

function verbCommand(plan: Plan, verb: RolloutVerb): Command {
  const command = new Command(verb)
    .description(WHAT[verb])
    .argument('[rollout]', 'its id (default: the one that is under way, else the newest)');
  return waits(command).action((id: string | undefined, options: Common) =>
    plan(async (io) => {
      const api = client(options);
      const view = await api.rolloutVerb(id ?? (await newest(api)).id, verb);
      const wanted = verb === 'rollback' ? 'RolledBack' : verb === 'abort' ? 'Aborted' : 'Done';
      return answer(io, api, view, options, wanted);
    }),
  );
}

function waits(command: Command): Command {
  return command
    .option('--wait', 'until it has ended')
    .addOption(timeoutOption('24h'))
    .addOption(controllerOption())
    .addOption(outputOption());
}

type Wanted = 'Done' | 'RolledBack' | 'Aborted';

async function answer(io: Io, api: ApiClient, view: RolloutView, options: Common, wanted: Wanted): Promise<number> {
  if (options.wait === true) return follow(io, api, view, options, wanted);
  if (options.output === 'name') print(io, view.id);
  else if (!(await printData(io, options.output, view))) {
    print(io, `rollout ${view.id}: ${view.phase}: ${view.reason}; follow it by: sluice rollout get ${view.id} -w`);
  }
  return 0;
}

async function follow(io: Io, api: ApiClient, view: RolloutView, options: Common, wanted: Wanted): Promise<number> {
  const quiet = options.output !== 'table' && options.output !== 'wide';
  const code = await followRollout(io, api, view.id, { timeout: options.timeout, quiet, wanted });
  if (options.output === 'name') print(io, view.id);
  else if (quiet) await printData(io, options.output, await api.rollout(view.id));
  return code;
}
