import { readFileSync } from 'node:fs';
import { SluiceError } from '@sluice/contract';

/**
 * The version pair that OpenKruise gives each of the two containers (S5): the own one and that of the peer. Integers that
 * only grow; "0" for the peer = no upgrade is under way; the larger one is the newer.
 */
export interface SidecarsetVersions {
  readonly own: number;
  readonly alt: number;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Undefined outside of a SidecarSet. Throws CONFIG_INVALID naming the variable. */
export function readSidecarsetVersions(env: Env): SidecarsetVersions | undefined {
  const own = read('SIDECARSET_VERSION', env.SIDECARSET_VERSION);
  if (own === undefined) return undefined;
  return { own, alt: read('SIDECARSET_VERSION_ALT', env.SIDECARSET_VERSION_ALT) ?? 0 };
}

/**
 * The same, as of now. The variables are read by the kubelet when it starts the container, and stay; OpenKruise writes the
 * pair into two annotations of the Pod, and a downward API volume of them (`file`, one `key="value"` a line) follows each
 * change. What the file does not have is taken from the variables.
 */
export function currentVersions(
  env: Env,
  from: { readonly file: string; readonly container: string } | undefined,
): SidecarsetVersions | undefined {
  const fixed = readSidecarsetVersions(env);
  if (from === undefined) return fixed;
  const annotations = readAnnotations(from.file);
  const of = (key: string) => {
    const name = `${key}.sidecarset.kruise.io/${from.container}`;
    return read(name, annotations.get(name));
  };
  const own = of('version') ?? fixed?.own;
  return own === undefined ? undefined : { own, alt: of('versionalt') ?? fixed?.alt ?? 0 };
}

/** The kubelet writes each value as Go's strconv.Quote does (fieldpath.FormatMap). */
function readAnnotations(file: string): Map<string, string> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return new Map();
  }
  const lines = text.split('\n').map((line) => /^([^=]+)="(.*)"$/.exec(line));
  return new Map(lines.flatMap((found) => (found ? [[found[1] ?? '', found[2] ?? ''] as const] : [])));
}

function read(name: string, text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value)) return value;
  throw new SluiceError('CONFIG_INVALID', `expected ${name} to be a whole number, found ${JSON.stringify(text)}`);
}
