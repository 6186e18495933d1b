import type { V1Pod } from '@kubernetes/client-node';

/** Names that other injectors give their proxies. */
const CONTAINERS = ['istio-proxy', 'linkerd-proxy', 'kuma-sidecar', 'consul-dataplane', 'osm-proxy', 'envoy-sidecar'];
/** What other injectors write on a Pod when they have given it a proxy; without a value: any. */
const ANNOTATIONS: Readonly<Record<string, string | undefined>> = {
  'sidecar.istio.io/status': undefined,
  'linkerd.io/proxy-version': undefined,
  'kuma.io/sidecar-injected': 'true',
  'consul.hashicorp.com/connect-inject-status': 'injected',
};

/** The proxy that another injector gave a Pod, by name, such as `container istio-proxy`. @param own names that are not another's */
export function foreignProxy(pod: V1Pod, own: readonly string[]): string | undefined {
  const all = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])];
  const container = all.find(({ name }) => CONTAINERS.includes(name) && !own.includes(name));
  return container && `container ${container.name}`;
}

/** The annotation by which another injector says that it gave the Pod a proxy. */
export function foreignMark(pod: V1Pod): string | undefined {
  const found = Object.entries(pod.metadata?.annotations ?? {}).find(
    ([key, value]) => key in ANNOTATIONS && (ANNOTATIONS[key] ?? value) === value,
  );
  return found && `annotation ${found[0]}`;
}
