import type {
  V1LabelSelectorRequirement,
  V1MutatingWebhook,
  V1MutatingWebhookConfiguration,
} from '@kubernetes/client-node';
import { INJECT } from './annotations.ts';
import { INJECT_PATH } from './server.ts';

/** Label of a namespace: `enabled` or `disabled`. */
export const NAMESPACE_LABEL = 'sluice.dev/injection';
/** Longer than any answer takes; the API server's own default is 10 s for each webhook that a Pod passes. */
const TIMEOUT_S = 5;

export interface ConfigurationOptions {
  readonly name: string;
  /** Where the controller runs: its Pods are never asked about, for without it none could start. */
  readonly namespace: string;
  readonly client: { readonly service: string } | { readonly url: string };
}

/**
 * Two webhooks, of which each Pod meets one at most: in a namespace that is labelled all Pods but those that want none, elsewhere
 * only those that ask. `failurePolicy: Fail`: a Pod that is to have a sidecar and starts without one would be outside of the mesh
 * until somebody notices, while one that is not made is made again by its owner. What that can stop is bounded by the selectors:
 * no Pod of Kubernetes itself, none of the controller, none that nobody labelled. The caBundle is the controller's.
 */
export function webhookConfiguration(options: ConfigurationOptions): V1MutatingWebhookConfiguration {
  const { name, namespace, client } = options;
  const key = 'kubernetes.io/metadata.name';
  const elsewhere = { key, operator: 'NotIn', values: ['kube-system', 'kube-public', 'kube-node-lease', namespace] };
  const webhook = (
    prefix: string,
    namespaces: V1LabelSelectorRequirement,
    pods: V1LabelSelectorRequirement,
  ): V1MutatingWebhook => ({
    name: `${prefix}.inject.sluice.dev`,
    admissionReviewVersions: ['v1'],
    clientConfig:
      'url' in client
        ? { url: client.url }
        : { service: { name: client.service, namespace, path: INJECT_PATH, port: 443 } },
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'], scope: 'Namespaced' }],
    namespaceSelector: { matchExpressions: [namespaces, elsewhere] },
    objectSelector: { matchExpressions: [pods] },
    failurePolicy: 'Fail',
    // Another webhook may give the Pod a proxy after us: then we are asked again, and refuse it.
    reinvocationPolicy: 'IfNeeded',
    matchPolicy: 'Equivalent',
    sideEffects: 'None',
    timeoutSeconds: TIMEOUT_S,
  });
  const label = NAMESPACE_LABEL;
  return {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name },
    webhooks: [
      webhook(
        'namespace',
        { key: label, operator: 'In', values: ['enabled'] },
        { key: INJECT, operator: 'NotIn', values: ['false'] },
      ),
      webhook(
        'pod',
        { key: label, operator: 'NotIn', values: ['enabled', 'disabled'] },
        { key: INJECT, operator: 'In', values: ['true'] },
      ),
    ],
  };
}
