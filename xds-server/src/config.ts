import { DEFAULT_POLICY, type DrainPolicy, parsePolicy, SluiceError } from '@sluice/contract';
import { z } from 'zod';
import { webhookSchema } from './inject/webhook-config.ts';
import type { KubernetesConfig } from './kube/kube-controller.ts';
import type { PrometheusOptions } from './rollout/index.ts';

const address = z
  .string()
  .regex(/^(\[[0-9a-fA-F:]+\]|[^:\s]+):\d{1,5}$/, 'expected HOST:PORT')
  .refine((value) => Number(value.slice(value.lastIndexOf(':') + 1)) <= 65_535, 'expected a port up to 65535');

const label = z.string().regex(/^[a-zA-Z_][a-zA-Z0-9_]*$/, 'expected the name of a label');
const query = z
  .string()
  .max(16_384)
  .refine((value) => /\$members\b/.test(value), 'expected $members, which limits the query to the rollout');

const prometheus = z.strictObject({
  url: z
    .url({ protocol: /^https?$/, error: 'expected an http or https URL' })
    .refine((value) => new URL(value).username === '', 'expected no credentials: use bearerTokenFile'),
  bearerTokenFile: z.string().min(1).optional(),
  caFile: z.string().min(1).optional(),
  /** Labels by which it knows a proxy, or a Pod and its namespace. */
  labels: z.union([z.strictObject({ proxy: label }), z.strictObject({ pod: label, namespace: label })]).optional(),
  failedRequests: query.optional(),
  p99Ms: query.optional(),
  everySeconds: z.number().min(1).max(3_600).default(15),
});

const kubernetes = z.strictObject({
  kubeconfig: z.string().min(1).optional(),
  namespace: z.string().min(1).optional(),
  watch: z.string().min(1).optional(),
  lease: z.string().min(1).default('sluice-controller'),
  /** This replica, among several over the same state. */
  replica: z
    .strictObject({
      id: z.string().min(1).optional(),
      host: z.string().min(1).optional(),
      leaseSeconds: z.number().int().min(3).max(300).optional(),
    })
    .optional(),
  /** Pods get the sidecar when they are made. */
  injection: webhookSchema.optional(),
});

const schema = z.strictObject({
  /** HTTP API, metrics and the agents' links. Port 0 = any free one. */
  apiAddress: address.default('127.0.0.1:18080'),
  /** xDS (gRPC). */
  xdsAddress: address.default('127.0.0.1:18000'),
  /** Folder of resource files in Envoy's form; none = only drain orders are served. */
  resources: z.string().min(1).optional(),
  /** SQLite file of the state; `:memory:` keeps none. Default: `sluice.db`; in Kubernetes the state is in resources. */
  state: z.string().min(1).optional(),
  /** One token for all agents, or a map proxy -> token where `*` stands for the others. None = all are let in. */
  tokens: z.union([z.string().min(1), z.record(z.string(), z.string().min(1))]).optional(),
  /** Laid over the default drain policy. */
  policy: z.unknown().optional(),
  /** What judges rollouts besides the agents. */
  metrics: z.strictObject({ prometheus }).optional(),
  /** HotUpgrades are carried out, by whichever replica leads. */
  kubernetes: kubernetes.optional(),
  logLevel: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
});

export type ControllerConfig = z.input<typeof schema>;

export interface ResolvedConfig {
  readonly api: { readonly host: string; readonly port: number };
  readonly xdsAddress: string;
  readonly resources: string | undefined;
  /** undefined: in Kubernetes' resources. */
  readonly state: string | undefined;
  readonly kubernetes: KubernetesConfig | undefined;
  readonly tokens: Readonly<Record<string, string>> | undefined;
  readonly policy: DrainPolicy;
  readonly prometheus: PrometheusOptions | undefined;
  readonly logLevel: string;
}

/** Throws CONFIG_INVALID naming the first wrong option. */
export function resolveConfig(config: ControllerConfig): ResolvedConfig {
  const result = schema.safeParse(config);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new SluiceError('CONFIG_INVALID', `${issue?.path.join('.') || 'config'}: ${issue?.message ?? 'wrong'}`);
  }
  const { apiAddress, xdsAddress, resources, state, tokens, policy, metrics, logLevel } = result.data;
  const { kubernetes } = result.data;
  const colon = apiAddress.lastIndexOf(':');
  return {
    api: { host: apiAddress.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(apiAddress.slice(colon + 1)) },
    xdsAddress,
    resources,
    state: state ?? (kubernetes === undefined ? 'sluice.db' : undefined),
    kubernetes,
    tokens: typeof tokens === 'string' ? { '*': tokens } : tokens,
    policy: parsePolicy(policy, DEFAULT_POLICY),
    prometheus: metrics?.prometheus,
    logLevel,
  };
}
