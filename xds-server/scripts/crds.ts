import { mkdirSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { copyIntoChart } from '../../deploy/scripts/chart.ts';
import { CRDS } from '../src/kube/crds.ts';

// Writes deploy/crds of src/kube/crds.ts, and the chart's copies; tests compare them.
const dir = new URL('../../deploy/crds/', import.meta.url);
mkdirSync(dir, { recursive: true });
for (const [name, crd] of Object.entries(CRDS))
  writeFileSync(new URL(name, dir), stringify(crd, { lineWidth: 0, aliasDuplicateObjects: false }));
const kustomization = {
  apiVersion: 'kustomize.config.k8s.io/v1beta1',
  kind: 'Kustomization',
  resources: Object.keys(CRDS).sort(),
};
writeFileSync(new URL('kustomization.yaml', dir), stringify(kustomization));
copyIntoChart();
