import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type { KubernetesObject } from '@kubernetes/client-node';
import { parseAllDocuments } from 'yaml';
import { toolPath } from '../k8s/tools.ts';

const run = promisify(execFile);
const TOOL_MS = 120_000;

export const DEPLOY = path.resolve(import.meta.dirname, '../../../deploy');
export const CHART = path.join(DEPLOY, 'helm/sluice');
export const SYSTEM = 'sluice-system';

export type Values = Readonly<Record<string, unknown>>;
/** Any field may be looked at. */
// biome-ignore lint/suspicious/noExplicitAny: manifests of every kind
export type Manifest = KubernetesObject & Record<string, any>;

export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the real helm. It has a folder of its own for what it keeps, and knows no cluster unless `env` has a KUBECONFIG. */
export async function helm(args: readonly string[], env: NodeJS.ProcessEnv = {}, values?: Values): Promise<Said> {
  const home = await mkdtemp(path.join(tmpdir(), 'sluice-helm-'));
  try {
    const more: string[] = [];
    if (values !== undefined) {
      // JSON is YAML.
      await writeFile(path.join(home, 'values.yaml'), JSON.stringify(values));
      more.push('--values', path.join(home, 'values.yaml'));
    }
    const own = { PATH: process.env.PATH, HOME: home, KUBECONFIG: '/dev/null', ...env };
    const { stdout, stderr } = await run(toolPath('helm'), [...args, ...more], {
      env: own,
      timeout: TOOL_MS,
      maxBuffer: 1 << 26,
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout = '', stderr = '' } = error as { code?: number; stdout?: string; stderr?: string };
    return { code: typeof code === 'number' ? code : 1, stdout, stderr: stderr || String(error) };
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

/** What the chart makes of those values. @throws Error with what helm said */
export async function chart(values: Values = {}, ...args: string[]): Promise<Manifest[]> {
  const said = await helm(['template', 'sluice', CHART, '--namespace', SYSTEM, ...args], {}, values);
  if (said.code !== 0) throw new Error(said.stderr);
  return manifests(said.stdout);
}

/** What kustomize (that of kubectl) makes of a folder below deploy/, or of one with an absolute path. */
export async function kustomize(folder: string): Promise<Manifest[]> {
  const { stdout } = await run(toolPath('kubectl'), ['kustomize', path.resolve(DEPLOY, folder)], {
    timeout: TOOL_MS,
    maxBuffer: 1 << 26,
  });
  return manifests(stdout);
}

export function manifests(text: string): Manifest[] {
  return parseAllDocuments(text)
    .map((document) => document.toJS() as Manifest | null)
    .filter((object) => object !== null);
}

export const nameOf = ({ kind, metadata }: KubernetesObject): string => `${kind} ${metadata?.name}`;
