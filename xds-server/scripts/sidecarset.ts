import { readFileSync, writeFileSync } from 'node:fs';
import { parse, stringify } from 'yaml';
import { parseInjection } from '../src/inject/config.ts';
import { sidecarSetOf } from '../src/inject/sidecar-set.ts';

/** deploy/sidecarset/sidecarset.yaml, made of deploy/sidecarset/injection.yaml and of the sample's workload; a test compares. */
export function sampleSidecarSet(): string {
  const settings = parseInjection(parse(readFileSync(new URL('injection.yaml', DIR), 'utf8')));
  const set = sidecarSetOf(settings, {
    name: 'sluice-shop',
    namespace: 'shop',
    selector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['shop'] }] },
    graceSeconds: 300,
  });
  return stringify(set, { lineWidth: 0, aliasDuplicateObjects: false });
}

const DIR = new URL('../../deploy/sidecarset/', import.meta.url);

if (import.meta.main) writeFileSync(new URL('sidecarset.yaml', DIR), sampleSidecarSet());
