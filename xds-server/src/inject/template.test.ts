import type { V1Container, V1Pod } from '@kubernetes/client-node';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type InjectionConfig, parseInjection } from './config.ts';
import type { AddOperation } from './patch.ts';
import { sidecarSetOf } from './sidecar-set.ts';
import { type Injected, inject, injectionStatus, pairNames, sidecarPair } from './template.ts';

const config = (more: Partial<InjectionConfig> = {}) =>
  parseInjection({ image: 'mesh/proxy:1.40.0', emptyImage: 'mesh/empty:1', ...more });
const pod = (spec: Partial<V1Pod['spec']> = {}, metadata: V1Pod['metadata'] = {}): V1Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'shop', namespace: 'shop', ...metadata },
  spec: { containers: [{ name: 'app', image: 'shop:1' }], ...spec },
});
const annotated = (annotations: Record<string, string>) => pod({}, { annotations });

function injected(one: V1Pod, settings = config()): Extract<Injected, { type: 'injected' }> {
  const result = inject(one, settings);
  if (result.type !== 'injected') throw new Error(JSON.stringify(result));
  return result;
}
const names = (list: readonly V1Container[] = []) => list.map(({ name }) => name);
const refusal = (one: V1Pod, settings = config()) => {
  const result = inject(one, settings);
  return result.type === 'refused' ? [result.error.code, result.error.message] : result;
};

test('a pair that differs in name, image and slot alone, before the app', () => {
  const { pod: after } = injected(pod({ terminationGracePeriodSeconds: 90 }));
  expect(names(after.spec?.containers)).toEqual(['proxy-1', 'proxy-2', 'app']);
  expect(names(after.spec?.initContainers)).toEqual(['sluice-redirect']);
  const [one, two] = after.spec?.containers ?? [];
  const [slot, ...env] = one?.env ?? [];
  expect(slot).toEqual({ name: 'SLUICE_SLOT', value: '1' });
  expect(two).toEqual({
    ...one,
    name: 'proxy-2',
    image: 'mesh/empty:1',
    env: [{ name: 'SLUICE_SLOT', value: '2' }, ...env],
  });
  expect(env).toContainEqual({ name: 'SLUICE_PROXY', value: '$(POD_NAME).$(POD_NAMESPACE)' });
  expect(env).toContainEqual({ name: 'SLUICE_TERMINATION_GRACE_S', value: '90' });
  expect(one).toMatchObject({
    args: ['agent', '--bootstrap', '/etc/sluice/bootstrap/envoy.json', '--concurrency', '2'],
    lifecycle: {
      postStart: { exec: { command: ['sluice', 'agent', 'wait'] } },
      preStop: { exec: { command: ['sluice', 'agent', 'prestop'] } },
    },
    readinessProbe: { httpGet: { port: 15_021 } },
    securityContext: { runAsUser: 1337, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } },
  });
  expect(injectionStatus(after)).toMatchObject({ container: 'proxy', native: false, image: 'mesh/proxy:1.40.0' });
  expect(after.metadata?.annotations?.['kubectl.kubernetes.io/default-container']).toBe('app');
});

test('the status port is there for whichever family the kubelet asks by', () => {
  const address = (families: ('IPv4' | 'IPv6')[]) =>
    sidecarPair(config({ interception: { families } }), 30)[0]?.env?.find(
      ({ name }) => name === 'SLUICE_STATUS_ADDRESS',
    )?.value;
  expect(address(['IPv4'])).toBe('0.0.0.0:15021');
  expect(address(['IPv6'])).toBe('[::]:15021');
  expect(address(['IPv4', 'IPv6'])).toBe('[::]:15021');
});

test.each([
  [0, '0'],
  [-1, '0'],
  [2_592_000, '2147483'],
])('a grace of %d s, which the API server takes, is one that the agent takes', (given, told) => {
  const { pod: after } = injected(pod({ terminationGracePeriodSeconds: given }));
  expect(after.spec?.containers[0]?.env).toContainEqual({ name: 'SLUICE_TERMINATION_GRACE_S', value: told });
});

test('each variable stands before those that refer to it', () => {
  const settings = config({ clusterId: { configMap: 'cluster-profile' }, token: { secret: 'agents' } });
  const env = sidecarPair(settings, 30)[0]?.env ?? [];
  for (const [i, { name, value = '' }] of env.entries()) {
    for (const [, used] of value.matchAll(/\$\((\w+)\)/g)) {
      expect([name, used, env.slice(0, i).some((one) => one.name === used)]).toEqual([name, used, true]);
    }
  }
  expect(env).toContainEqual({
    name: 'CLUSTER_ID',
    valueFrom: { configMapKeyRef: { name: 'cluster-profile', key: 'clusterId' } },
  });
});

test('native sidecars start before the other init containers, which they serve; plain ones after them', () => {
  const user = pod({ initContainers: [{ name: 'migrate' }] });
  expect(names(injected(user).pod.spec?.initContainers)).toEqual(['migrate', 'sluice-redirect']);
  const { spec } = injected(user, config({ native: true })).pod;
  expect(names(spec?.initContainers)).toEqual(['sluice-redirect', 'proxy-1', 'proxy-2', 'migrate']);
  expect(spec?.initContainers?.slice(1, 3).map(({ restartPolicy }) => restartPolicy)).toEqual(['Always', 'Always']);
  expect(names(spec?.containers)).toEqual(['app']);
});

test('annotations of a Pod win over the configuration', () => {
  const { pod: after, warnings } = injected(
    annotated({
      'sluice.dev/image': 'mesh/proxy:1.39.3',
      'sluice.dev/bootstrap': 'shop-envoy',
      'sluice.dev/concurrency': '4',
      'sluice.dev/exclude-inbound-ports': '9090, 9091',
      'sluice.dev/exclude-outbound-ranges': '10.96.0.1/32',
      'sluice.dev/imgae': 'x',
    }),
  );
  const [one] = after.spec?.containers ?? [];
  expect([one?.image, one?.args?.at(-1)]).toEqual(['mesh/proxy:1.39.3', '4']);
  expect(after.spec?.volumes?.[0]?.configMap?.name).toBe('shop-envoy');
  const script = after.spec?.initContainers?.[0]?.command?.[2];
  expect(script).toContain('--dport 9091 -j RETURN');
  expect(script).toContain('-d 10.96.0.1/32 -j RETURN');
  expect(warnings).toEqual(['sluice: annotation sluice.dev/imgae is not known']);
  expect(injected(annotated({ 'sluice.dev/interception': 'None' })).pod.spec?.initContainers).toBeUndefined();
});

test.each([
  ['image', 'a b'],
  ['image', 'mesh/empty:1'],
  ['bootstrap', 'No_Name'],
  ['concurrency', '0'],
  ['concurrency', 'two'],
  ['native-sidecar', 'yes'],
  ['interception', 'TPROXY'],
  ['exclude-inbound-ports', '80,http'],
  ['exclude-inbound-ports', '65536'],
  ['exclude-outbound-ranges', '10.0.0.0/33'],
  ['exclude-outbound-ranges', '10.0.0.1;reboot'],
  ['include-outbound-ranges', '$(id)'],
  ['inject', 'maybe'],
])('annotation %s: %s is refused by name', (name, value) => {
  const [code, message] = refusal(annotated({ [`sluice.dev/${name}`]: value })) as string[];
  expect(code).toBe('POD_ANNOTATION_INVALID');
  expect(message).toContain(`sluice.dev/${name}: `);
  expect(message).toContain(JSON.stringify(value));
});

test('a Pod that another injector gave a proxy is refused by its name', () => {
  const foreign = 'another injector gave the Pod a proxy already: ';
  const istio = { name: 'istio-proxy' };
  expect(refusal(pod({ containers: [{ name: 'app' }, istio] }))).toEqual([
    'POD_FOREIGN_PROXY',
    `${foreign}container istio-proxy`,
  ]);
  expect(refusal(pod({ initContainers: [{ name: 'linkerd-proxy' }] }))).toEqual([
    'POD_FOREIGN_PROXY',
    `${foreign}container linkerd-proxy`,
  ]);
  expect(refusal(annotated({ 'sidecar.istio.io/status': '{}' }))).toEqual([
    'POD_FOREIGN_PROXY',
    `${foreign}annotation sidecar.istio.io/status`,
  ]);
  expect(inject(annotated({ 'kuma.io/sidecar-injected': 'false' }), config()).type).toBe('injected');
  // Another one that comes after us: seen when the API server calls again.
  const { pod: after } = injected(pod());
  const both = { ...after, spec: { ...after.spec, containers: [...(after.spec?.containers ?? []), istio] } };
  expect(refusal(both)[0 as never]).toBe('POD_FOREIGN_PROXY');
});

test('who wants none gets none, also beside another proxy', () => {
  const not = { 'sluice.dev/inject': 'false' };
  expect(inject(annotated({ ...not, 'sidecar.istio.io/status': '{}' }), config()).type).toBe('skipped');
  expect(inject(pod({}, { labels: not, annotations: { 'sluice.dev/inject': 'true' } }), config()).type).toBe('skipped');
});

test('a Pod on the node’s network is left alone with a warning; it is refused when it asks', () => {
  const why = 'hostNetwork: its traffic is that of the whole node';
  expect(inject(pod({ hostNetwork: true }), config())).toEqual({
    type: 'skipped',
    why,
    warnings: [`sluice: no sidecar: ${why}`],
  });
  const asks = pod({ hostNetwork: true }, { labels: { 'sluice.dev/inject': 'true' } });
  expect(refusal(asks)).toEqual(['POD_NOT_INJECTABLE', `the Pod can not have a sidecar: ${why}`]);
});

test('what is taken already is refused by name', () => {
  const text = (one: V1Pod) => (refusal(one) as string[])[1];
  expect(text(pod({ containers: [{ name: 'proxy-2' }] }))).toContain('container proxy-2');
  expect(text(pod({ volumes: [{ name: 'sluice-shared', emptyDir: {} }] }))).toContain('volume sluice-shared');
  expect(text(pod({ containers: [{ name: 'app', ports: [{ containerPort: 15_006 }] }] }))).toContain('port 15006');
  expect(text(annotated({ 'sluice.dev/status': '{"container":"proxy"}' }))).toContain('annotation sluice.dev/status');
});

test('what is empty in a file is null', () => {
  for (const metadata of [null, { name: 'shop', annotations: null, labels: null }]) {
    const before = { ...pod(), metadata } as unknown as V1Pod;
    const { pod: after, patch } = injected(before);
    expect(apply(before, patch)).toEqual(after);
  }
});

test('warnings for what works otherwise than one may think', () => {
  const { warnings } = injected(pod({ restartPolicy: 'Never', securityContext: { runAsUser: 1337 } }));
  expect(warnings).toHaveLength(2);
  expect(injected(pod({ restartPolicy: 'Never' }), config({ native: true })).warnings).toEqual([]);
});

test('the SidecarSet has the same container, volumes and init container', () => {
  const settings = config();
  const after = injected(pod({ terminationGracePeriodSeconds: 60 }), settings).pod.spec;
  const selector = { matchLabels: { app: 'shop' } };
  const { spec } = sidecarSetOf(settings, { name: 'shop', selector, graceSeconds: 60 });
  const { name, env = [], ...first } = (after?.containers[0] ?? {}) as V1Container;
  expect(spec).toMatchObject({
    volumes: after?.volumes,
    initContainers: after?.initContainers,
    containers: [{ name: 'proxy', ...first, env: env.filter((one) => one.name !== 'SLUICE_SLOT') }],
  });
  expect(name).toBe(pairNames('proxy')[0]);
});

/** RFC 6902 for the one operation that is used. */
function apply(one: V1Pod, patch: readonly AddOperation[]): V1Pod {
  const result = structuredClone(one);
  for (const { path, value } of patch) {
    const keys = path
      .slice(1)
      .split('/')
      .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = keys.pop() as string;
    const whole = result as unknown as Record<string, unknown>;
    const at = keys.reduce((object, key) => object[key] as Record<string, unknown>, whole);
    if (Array.isArray(at)) at.splice(Number(last), 0, value);
    else at[last] = value;
  }
  return result;
}

const name = fc.stringMatching(/^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$/);
const containers = (least: number) =>
  fc.uniqueArray(fc.record({ name, image: fc.string(), command: fc.array(fc.string(), { maxLength: 2 }) }), {
    selector: (one) => one.name,
    minLength: least,
    maxLength: 3,
  });
const pods = fc.record({
  apiVersion: fc.constant('v1'),
  kind: fc.constant('Pod'),
  metadata: fc.record(
    { name, labels: fc.dictionary(name, name), annotations: fc.dictionary(fc.string(), fc.string(), { maxKeys: 3 }) },
    { requiredKeys: [] },
  ),
  spec: fc.record(
    {
      containers: containers(1),
      initContainers: containers(0),
      volumes: fc.uniqueArray(fc.record({ name }), { selector: (one) => one.name, maxLength: 3 }),
      terminationGracePeriodSeconds: fc.nat(1000),
      tolerations: fc.array(fc.record({ key: fc.string() }), { maxLength: 2 }),
      hostAliases: fc.array(fc.record({ ip: fc.string() }), { maxLength: 2 }),
    },
    { requiredKeys: ['containers'] },
  ),
});
const settings = fc
  .record({ native: fc.boolean(), mode: fc.constantFrom('REDIRECT', 'None') })
  .map(({ native, mode }) => config({ native, interception: { mode: mode as 'None' } }));

test('whatever the Pod: nothing of the user’s is lost or moved, names stay unique, and a second time changes nothing', () => {
  fc.assert(
    fc.property(pods, settings, (one, options) => {
      const before = structuredClone(one) as V1Pod;
      const result = inject(one as V1Pod, options);
      expect(one).toEqual(before);
      if (result.type !== 'injected') return;
      const { pod: after } = result;
      expect(apply(before, result.patch)).toEqual(JSON.parse(JSON.stringify(after)));
      expect(after.metadata).toMatchObject(before.metadata ?? {});
      const { containers, initContainers, volumes, ...others } = before.spec ?? { containers: [] };
      expect(after.spec).toMatchObject(others);
      for (const [was = [], is = []] of [
        [containers, after.spec?.containers],
        [initContainers, after.spec?.initContainers],
        [volumes, after.spec?.volumes],
      ]) {
        const kept = is.filter((item: { name: string }) => was.some((old: { name: string }) => old.name === item.name));
        expect(kept).toEqual(was);
      }
      const all = names([...(after.spec?.containers ?? []), ...(after.spec?.initContainers ?? [])]);
      const ours = all.filter((each) => /^(proxy-[12]|sluice-redirect)$/.test(each));
      expect(ours.length).toBe(new Set(ours).size);
      expect(ours.every((each) => /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(each) && each.length < 64)).toBe(true);
      expect(inject(after, options).type).toBe('skipped');
    }),
  );
});
