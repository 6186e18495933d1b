import { cpSync, readdirSync, rmSync } from 'node:fs';

/** A chart can not read outside its folder: it has copies of deploy/crds and deploy/rbac, which test/deploy compares. */
export function copyIntoChart(): void {
  for (const folder of ['crds', 'rbac']) {
    const from = new URL(`../${folder}/`, import.meta.url);
    const to = new URL(`../helm/sluice/files/${folder}/`, import.meta.url);
    rmSync(to, { recursive: true, force: true });
    for (const name of readdirSync(from)) {
      if (name !== 'kustomization.yaml' && name !== 'service-account.yaml')
        cpSync(new URL(name, from), new URL(name, to));
    }
  }
}

if (import.meta.main) copyIntoChart();
