import type { V1Pod } from '@kubernetes/client-node';
import { SluiceError } from '@sluice/contract';
import { type Injection, type InjectionConfig, injectionSchema } from './config.ts';

const PREFIX = 'sluice.dev/';
/** What was injected; written by us. */
export const STATUS = `${PREFIX}status`;
/** Whether this Pod is injected, as label or annotation: `true` or `false`. */
export const INJECT = `${PREFIX}inject`;

type Patch = Partial<Omit<InjectionConfig, 'interception' | 'bootstrap'>> & {
  readonly interception?: Partial<InjectionConfig['interception']>;
  readonly bootstrap?: Partial<InjectionConfig['bootstrap']>;
};
type Reader = (text: string, config: Injection) => Patch;

/** What a Pod may want otherwise than the configuration. */
const READERS: Readonly<Record<string, Reader>> = {
  image: (image) => ({ image }),
  bootstrap: (configMap, { bootstrap }) => ({ bootstrap: { ...bootstrap, configMap } }),
  concurrency: (text) => ({ concurrency: number(text) }),
  'native-sidecar': (text) => ({ native: truth(text) }),
  interception: (mode) => ({ interception: { mode: mode as 'REDIRECT' } }),
  'include-inbound-ports': (text) => ({ interception: { includeInboundPorts: text === '*' ? '*' : numbers(text) } }),
  'exclude-inbound-ports': (text) => ({ interception: { excludeInboundPorts: numbers(text) } }),
  'include-outbound-ranges': (text) => ({ interception: { includeOutboundRanges: text === '*' ? '*' : items(text) } }),
  'exclude-outbound-ranges': (text) => ({ interception: { excludeOutboundRanges: items(text) } }),
  'exclude-outbound-ports': (text) => ({ interception: { excludeOutboundPorts: numbers(text) } }),
};

/** Names of the annotations, for people. */
export const ANNOTATIONS: readonly string[] = Object.keys(READERS).map((name) => `${PREFIX}${name}`);

/** Does the Pod say itself whether it wants a sidecar? Label and annotation say the same; `false` of either wins. */
export function asked({ metadata }: V1Pod): boolean | undefined {
  const said = [metadata?.labels?.[INJECT], metadata?.annotations?.[INJECT]].flatMap((text) => {
    if (text === undefined) return [];
    try {
      return [truth(text)];
    } catch (thrown) {
      throw wrong(INJECT, text, thrown);
    }
  });
  return said.length === 0 ? undefined : said.every(Boolean);
}

/** The configuration as this Pod wants it. Throws POD_ANNOTATION_INVALID naming the first wrong annotation. */
export function configFor({ metadata }: V1Pod, config: Injection): { config: Injection; unknown: string[] } {
  let result = config;
  const unknown: string[] = [];
  for (const [key, text] of Object.entries(metadata?.annotations ?? {}).sort()) {
    if (!key.startsWith(PREFIX) || key === STATUS || key === INJECT) continue;
    const read = Object.hasOwn(READERS, key.slice(PREFIX.length)) ? READERS[key.slice(PREFIX.length)] : undefined;
    if (read === undefined) {
      unknown.push(key);
      continue;
    }
    try {
      const { interception, ...more } = read(text.trim(), result);
      const next = { ...result, ...more, interception: { ...result.interception, ...interception } };
      const parsed = injectionSchema.safeParse(next);
      if (!parsed.success) throw new Error(parsed.error.issues[0]?.message);
      result = parsed.data;
    } catch (thrown) {
      throw wrong(key, text, thrown);
    }
  }
  return { config: result, unknown };
}

function wrong(key: string, text: string, thrown: unknown): SluiceError {
  const found = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text);
  return new SluiceError('POD_ANNOTATION_INVALID', `${key}: ${(thrown as Error).message}, found ${found}`);
}

function truth(text: string): boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  throw new Error('expected true or false');
}

function number(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Error('expected a whole number');
}

const items = (text: string): string[] => (text === '' ? [] : text.split(',').map((item) => item.trim()));

function numbers(text: string): number[] {
  return items(text).map((item) => {
    if (/^\d{1,5}$/.test(item)) return Number(item);
    throw new Error('expected ports with commas between them');
  });
}
