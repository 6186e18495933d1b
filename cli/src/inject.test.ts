import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { V1CronJob, V1Pod } from '@kubernetes/client-node';
import { afterAll, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { runProgram } from './program.ts';

const dir = mkdtempSync(join(tmpdir(), 'sluice-inject-'));
afterAll(() => rmSync(dir, { recursive: true }));

const file = (name: string, text: string) => {
  writeFileSync(join(dir, name), text);
  return join(dir, name);
};

async function run(...args: string[]) {
  const text = { out: '', err: '' };
  const to = (name: 'out' | 'err') =>
    new Writable({
      write(chunk, _, done) {
        text[name] += String(chunk);
        done();
      },
    });
  const io = { out: to('out'), err: to('err'), env: {}, interrupted: () => AbortSignal.any([]), programName: 'sluice' };
  return { code: await runProgram(['inject', ...args], io), ...text };
}

const POD = `apiVersion: v1
kind: Pod
metadata: { name: shop }
spec:
  containers: [{ name: app, image: 'shop:1' }]
`;
const settings = file(
  'settings.yaml',
  "sidecar: { image: 'mesh/proxy:1.40.0', emptyImage: 'mesh/empty:1', native: true }\n",
);
const IMAGES = ['--image', 'mesh/proxy:1.39.3', '--empty-image', 'mesh/empty:1'];

test('a Pod and a CronJob are shown with the sidecar, a Service as it is', async () => {
  const cron = `apiVersion: batch/v1
kind: CronJob
spec: { jobTemplate: { spec: { template: { spec: { restartPolicy: Never, containers: [{ name: app }] } } } } }
`;
  const all = file('all.yaml', [POD, 'apiVersion: v1\nkind: Service\nspec: {}\n', cron].join('---\n'));
  const { code, out, err } = await run('--file', all, '--settings', settings, '--image', 'mesh/proxy:2');
  expect([code, err]).toEqual([0, `${all}, document 2: holds no Pod\n`]);
  const [pod, service, job] = parseAllDocuments(out).map((one) => one.toJS()) as [V1Pod, object, V1CronJob];
  const names = (one: V1Pod | undefined) => one?.spec?.initContainers?.map(({ name }) => name);
  expect(names(pod)).toEqual(['sluice-redirect', 'proxy-1', 'proxy-2']);
  expect(pod.spec?.initContainers?.[1]?.image).toBe('mesh/proxy:2');
  expect(service).toEqual({ apiVersion: 'v1', kind: 'Service', spec: {} });
  expect(names(job.spec?.jobTemplate.spec?.template as V1Pod)).toEqual(['sluice-redirect', 'proxy-1', 'proxy-2']);
});

test('the patch, as the API server gets it', async () => {
  const { out } = await run('-f', file('pod.yaml', POD), ...IMAGES, '-o', 'patch');
  expect((JSON.parse(out) as { op: string }[]).every(({ op }) => op === 'add')).toBe(true);
});

test('the settings are those of the controller’s file in deploy/ too', async () => {
  const url = new URL('../../deploy/kustomize/overlays/injection/config.yaml', import.meta.url);
  const { code, out } = await run('-f', file('pod.yaml', POD), '--settings', fileURLToPath(url));
  expect([code, out.includes('image: mesh/sluice-sidecar:')]).toEqual([0, true]);
});

test('a refusal is an exit code', async () => {
  const foreign = file('foreign.yaml', POD.replace('app,', 'istio-proxy,'));
  const { code, err } = await run('-f', foreign, ...IMAGES);
  expect(code).toBe(5);
  expect(err).toContain('document 1: another injector gave the Pod a proxy already: container istio-proxy');
  expect((await run('-f', foreign)).err).toContain('expected --settings, or --image and --empty-image');
  const shapeless = file('shapeless.yaml', POD.replace("[{ name: app, image: 'shop:1' }]", '{ name: app }'));
  expect((await run('-f', shapeless, ...IMAGES)).err).toContain('document 1.spec.containers: ');
  expect((await run('-f', file('text.yaml', '- a'), ...IMAGES)).code).toBe(0);
  const wrong = file('wrong.yaml', 'sidecar: { image: x, emptyImage: y, native: 7 }');
  expect((await run('-f', foreign, '--settings', wrong)).err).toContain('--settings.sidecar.native: ');
});
