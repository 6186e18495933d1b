import { SluiceError } from '@sluice/contract';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { readObject } from './files.ts';

/** Where an option also comes from: `--config FILE` under its long name in camel case, and the environment. */
export function configOption(): Option {
  return new Option('--config <file>', 'YAML or JSON file with options under their names in camelCase').env(
    'SLUICE_CONFIG',
  );
}

/**
 * Lays the command's config file below its flags and environment: flags win over environment over file over defaults.
 * A name that is no option is refused, for it is most likely misspelt. Values go through the option's own parser.
 */
export async function applyConfigFile(command: Command): Promise<void> {
  const file = command.getOptionValue('config') as string | undefined;
  if (file === undefined) return;
  const given = await readObject(file, '--config');
  for (const [name, value] of Object.entries(given)) {
    const option = command.options.find((o) => o.attributeName() === name && name !== 'config');
    if (option === undefined) {
      const known = command.options.map((o) => o.attributeName()).filter((n) => n !== 'config');
      throw new SluiceError('CONFIG_INVALID', `${file}: ${name}: no such option; there are ${known.join(', ')}`);
    }
    const source = command.getOptionValueSource(name);
    if (source === 'cli' || source === 'env') continue;
    command.setOptionValueWithSource(name, convert(option, value, `${file}: ${name}`), 'config');
  }
}

function convert(option: Option, value: unknown, path: string): unknown {
  if (option.isBoolean()) {
    if (typeof value === 'boolean') return value;
    throw new SluiceError('CONFIG_INVALID', `${path}: expected true or false, found ${JSON.stringify(value)}`);
  }
  // An object (a policy, a map of tokens) is for the option's owner to check.
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value;
  const list = Array.isArray(value) ? value : [value];
  if ((Array.isArray(value) && !option.variadic) || list.some((v) => typeof v !== 'string' && typeof v !== 'number')) {
    throw new SluiceError('CONFIG_INVALID', `${path}: expected ${option.flags}, found ${JSON.stringify(value)}`);
  }
  const texts = list.map(String);
  try {
    if (!option.variadic) return option.parseArg ? option.parseArg(texts[0] ?? '', undefined) : texts[0];
    if (!option.parseArg) return texts;
    return texts.reduce<unknown>((all, text) => option.parseArg?.(text, all), undefined);
  } catch (thrown) {
    if (thrown instanceof InvalidArgumentError) throw new SluiceError('CONFIG_INVALID', `${path}: ${thrown.message}`);
    throw thrown;
  }
}
