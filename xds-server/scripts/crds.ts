import { mkdirSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { CRDS } from '../src/kube/crds.ts';

// Writes deploy/crds of src/kube/crds.ts; a test compares them.
const dir = new URL('../../deploy/crds/', import.meta.url);
mkdirSync(dir, { recursive: true });
for (const [name, crd] of Object.entries(CRDS))
  writeFileSync(new URL(name, dir), stringify(crd, { lineWidth: 0, aliasDuplicateObjects: false }));
