import { cpSync, readdirSync, rmSync } from 'node:fs';

/** Of deploy/, by their name in the chart. */
export const COPIED = { crds: 'crds', rbac: 'rbac', injection: 'kustomize/components/injection' } as const;
/** Kustomize's own, and what the chart has a template for. */
export const NOT_COPIED: readonly string[] = ['kustomization.yaml', 'service-account.yaml'];

/** A chart can not read outside its folder: it has copies, which test/deploy compares. */
export function copyIntoChart(): void {
  for (const [name, folder] of Object.entries(COPIED)) {
    const from = new URL(`../${folder}/`, import.meta.url);
    const to = new URL(`../helm/sluice/files/${name}/`, import.meta.url);
    rmSync(to, { recursive: true, force: true });
    for (const file of readdirSync(from)) {
      if (!NOT_COPIED.includes(file)) cpSync(new URL(file, from), new URL(file, to));
    }
  }
}

if (import.meta.main) copyIntoChart();
