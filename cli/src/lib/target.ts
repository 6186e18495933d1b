import { METHOD_WISHES, type MethodWish, type PolicyPatch, parsePolicy, type UpgradeTarget } from '@sluice/contract';
import { type Command, Option } from 'commander';
import { readObject } from './files.ts';

export interface TargetOptions {
  readonly to: string;
  readonly bootstrap?: string;
  readonly method?: MethodWish;
}

/** What an upgrade is to become: the same flags wherever one is named. */
export function targetOptions(command: Command): Command {
  return command
    .requiredOption('--to <version>', 'Envoy version, or path of a binary where the agent runs')
    .option('--bootstrap <file>', 'another bootstrap, where the agent runs')
    .addOption(
      new Option('--method <method>', 'how to hand over (default: chosen by the preflight)').choices(METHOD_WISHES),
    );
}

export function target({ to, bootstrap, method }: TargetOptions): UpgradeTarget {
  return { to, ...(bootstrap !== undefined && { bootstrap }), ...(method !== undefined && { method }) };
}

export function policyOption(): Option {
  return new Option('--policy <file>', 'drain policy to lay over the default, YAML or JSON');
}

/** Checked here too, so that a misspelt field is told before anything is sent. Throws CONFIG_INVALID with its path. */
export async function readPolicy(file: string | undefined): Promise<PolicyPatch | undefined> {
  if (file === undefined) return undefined;
  const patch = await readObject(file, '--policy');
  parsePolicy(patch);
  return patch as PolicyPatch;
}
