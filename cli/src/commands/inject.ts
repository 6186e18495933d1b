import { readFileSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';
import { Command, Option } from 'commander';
import { readObject, readText } from '../lib/files.ts';
import { print } from '../lib/io.ts';
import type { Plan } from '../program.ts';

interface Options {
  readonly file: string;
  readonly settings?: string;
  readonly image?: string;
  readonly emptyImage?: string;
  readonly output: 'yaml' | 'json' | 'patch';
}

/** Where a kind has its Pod; others are printed as they are. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Pod: [],
  Deployment: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

export function injectCommand(plan: Plan): Command {
  return new Command('inject')
    .description('show a Pod as the webhook would inject it; nothing is sent anywhere')
    .requiredOption('-f, --file <file>', 'Pods, or what makes them, as YAML or JSON; - reads standard input')
    .addOption(
      new Option(
        '--settings <file>',
        'what is injected: the file of `sluice controller`, its --kube-inject or --config',
      ),
    )
    .addOption(new Option('--image <image>', 'of the sidecar; wins over --settings'))
    .addOption(new Option('--empty-image <image>', 'of the Empty container; wins over --settings'))
    .addOption(new Option('-o, --output <format>', 'how to print').choices(['yaml', 'json', 'patch']).default('yaml'))
    .action((options: Options) =>
      plan(async (io) => {
        const { parseAllDocuments, stringify } = await import('yaml');
        const { inject } = await import('@sluice/xds-server/inject/template');
        const { asPod } = await import('@sluice/xds-server/inject/shape');
        const config = await settings(options);
        const text = options.file === '-' ? readFileSync(0, 'utf8') : readText(options.file, '--file');
        const printed: string[] = [];
        for (const [i, document] of parseAllDocuments(text).entries()) {
          const where = `${options.file}, document ${i + 1}`;
          const [mistake] = document.errors;
          if (mistake !== undefined) throw new SluiceError('INPUT_INVALID', `${where}: ${mistake.message}`);
          const object = document.toJS() as Record<string, unknown> | null;
          if (object === null) continue;
          const path = typeof object.kind === 'string' ? TEMPLATES[object.kind] : undefined;
          const result = path && inject(asPod(at(object, path), [where, ...path].join('.')), config);
          if (result?.type === 'refused') {
            const { code, message, hint } = result.error;
            throw new SluiceError(code, `${where}: ${message}`, { hint });
          }
          const notes = result === undefined ? ['holds no Pod'] : result.warnings;
          if (result?.type === 'skipped' && notes.length === 0) io.err.write(`${where}: not injected: ${result.why}\n`);
          for (const note of notes) io.err.write(`${where}: ${note}\n`);
          if (options.output === 'patch') {
            printed.push(JSON.stringify(result?.type === 'injected' ? result.patch : [], null, 2));
            continue;
          }
          const whole = result?.type === 'injected' ? put(object, path ?? [], result.pod) : object;
          const style = { lineWidth: 0, aliasDuplicateObjects: false };
          printed.push(options.output === 'json' ? JSON.stringify(whole, null, 2) : stringify(whole, style));
        }
        print(io, printed.join(options.output === 'yaml' ? '---\n' : '\n'));
        return 0;
      }),
    );
}

/** Throws CONFIG_INVALID naming the first wrong field. */
async function settings({ settings: file, image, emptyImage }: Options) {
  const { parseInjection } = await import('@sluice/xds-server/inject/config');
  const { parseWebhook } = await import('@sluice/xds-server/inject/webhook-config');
  const flags = { ...(image !== undefined && { image }), ...(emptyImage !== undefined && { emptyImage }) };
  if (file !== undefined) {
    const read = await readObject(file, '--settings');
    // The controller's own file has them too.
    const given = (typeof read.kubeInject === 'object' ? read.kubeInject : read) as Record<string, unknown>;
    const sidecar = given.sidecar as object | undefined;
    return parseWebhook({ ...given, sidecar: { ...sidecar, ...flags } }, '--settings').sidecar;
  }
  if (image === undefined || emptyImage === undefined) {
    throw new SluiceError('CONFIG_INVALID', 'expected --settings, or --image and --empty-image, found neither');
  }
  return parseInjection(flags, 'flags');
}

function at(object: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], object);
}

function put(object: object, path: readonly string[], value: unknown): unknown {
  const [key, ...more] = path;
  if (key === undefined) return value;
  return { ...object, [key]: put((object as Record<string, object>)[key] ?? {}, more, value) };
}
