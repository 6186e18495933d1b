import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { KubernetesObject } from '@kubernetes/client-node';
import { parseAllDocuments } from 'yaml';
import { type Child, start } from '../process.ts';
import type { Cluster } from './cluster.ts';

export const SYSTEM = 'sluice-system';
export const ACCOUNT = 'sluice-controller';
/** The controller, as the API server knows it. */
export const USER = `system:serviceaccount:${SYSTEM}:${ACCOUNT}`;
const DEPLOY = path.resolve(import.meta.dirname, '../../../deploy');

/** Applies deploy/crds and deploy/rbac. Resolves with a kubeconfig that has the controller's rights and no other. */
export async function installSluice(cluster: Cluster): Promise<string> {
  await cluster.namespace(SYSTEM);
  const crds = manifests('crds');
  for (const object of [...crds, ...manifests('rbac')]) await cluster.client.apply(object);
  for (const { metadata } of crds) await established(cluster, metadata?.name ?? '');
  return cluster.serviceAccountKubeconfig(SYSTEM, ACCOUNT);
}

function manifests(folder: string): KubernetesObject[] {
  const dir = path.join(DEPLOY, folder);
  const files = readdirSync(dir).filter((name) => name.endsWith('.yaml') && name !== 'kustomization.yaml');
  return files.flatMap((name) =>
    parseAllDocuments(readFileSync(path.join(dir, name), 'utf8')).map((one) => one.toJS() as KubernetesObject),
  );
}

type Crd = KubernetesObject & {
  readonly status?: { readonly conditions?: readonly { type: string; status: string }[] };
};

function established(cluster: Cluster, name: string): Promise<true> {
  const path = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
  const isSo = ({ status }: Crd) =>
    status?.conditions?.some((one) => one.type === 'Established' && one.status === 'True');
  return cluster.client.watch<Crd, true>(path, ({ object }) =>
    object.metadata?.name === name && isSo(object) ? true : undefined,
  );
}

export interface KubeControllerOptions {
  readonly kubeconfig: string;
  /** HOST:PORT. */
  readonly api: string;
  readonly xds: string;
  /** File that gets its log. */
  readonly log?: string;
  /** More of its config. */
  readonly config?: Record<string, unknown>;
  /** It is one of several. */
  readonly replica?: { readonly id: string; readonly leaseSeconds: number };
  readonly onLine?: (line: string) => void;
}

/** A controller process whose state is in the cluster. */
export function startKubeController(options: KubeControllerOptions): Promise<Child> {
  const { kubeconfig, api, xds, log, config = {}, replica, onLine } = options;
  const main = path.resolve(import.meta.dirname, '../controller-main.ts');
  const all = {
    apiAddress: api,
    xdsAddress: xds,
    kubernetes: { kubeconfig, namespace: SYSTEM, ...(replica && { replica }) },
    ...config,
  };
  return start(process.execPath, ['--conditions=sluice-source', main, JSON.stringify(all)], {
    name: 'controller',
    ready: /^controller ready/,
    readyTimeoutMs: 60_000,
    ...(log !== undefined && { log }),
    ...(onLine && { onLine }),
  });
}
