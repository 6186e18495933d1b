import { isIP } from 'node:net';
import { SluiceError } from '@sluice/contract';
import { z } from 'zod';

/** Ports that the sidecar has of its own, as Istio lays them out. */
export const PORTS = { inbound: 15006, outbound: 15001, status: 15021 } as const;
/** User and group of the sidecar: its own traffic is told from the app's by the user. */
export const SIDECAR_USER = 1337;

const label = z
  .string()
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/, 'expected a name of small letters, digits and dashes');
const configName = z
  .string()
  .regex(/^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$/, 'expected the name of an object')
  .max(253);
const key = z
  .string()
  .regex(/^[-._a-zA-Z0-9]{1,253}$/, 'expected a key of letters, digits, dots, dashes and underscores');
export const image = z
  .string()
  .max(1024)
  .regex(/^\w([\w./:@-]*\w)?$/, 'expected the name of an image');
const hostPort = z.string().regex(/^(\[[0-9a-fA-F:]+\]|[^:\s,]+):\d{1,5}$/, 'expected HOST:PORT');
const url = z
  .string()
  .refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) && !/[,\s]/.test(text), {
    message: 'expected a URL http://HOST:PORT',
  });
export const port = z.number().int().min(1).max(65_535);
export const range = z.string().refine(isRange, { message: 'expected an address or a block such as 10.0.0.0/8' });
const quantity = z.string().regex(/^\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi)?$/, 'expected a quantity such as 100m or 128Mi');
const amounts = z.strictObject({ cpu: quantity.optional(), memory: quantity.optional() });

/** What is sent to the sidecar; fields as those of istio-iptables. */
const interception = z.strictObject({
  /** `None`: the Pod's listeners are reached by their own ports, or a CNI plugin redirects. */
  mode: z.enum(['REDIRECT', 'None']).default('REDIRECT'),
  /** `*` or ports; of those that are excluded, none. The status port never is. */
  includeInboundPorts: z.union([z.literal('*'), z.array(port)]).default('*'),
  excludeInboundPorts: z.array(port).default([15_090]),
  /** `*` or blocks of addresses. */
  includeOutboundRanges: z.union([z.literal('*'), z.array(range)]).default('*'),
  /** Such as the API server's. */
  excludeOutboundRanges: z.array(range).default([]),
  excludeOutboundPorts: z.array(port).default([]),
  /** With IPv6 the image needs `ip6tables`, and the bootstrap listeners on `::`. */
  families: z
    .array(z.enum(['IPv4', 'IPv6']))
    .min(1)
    .default(['IPv4']),
});

/** One template of the sidecar: the webhook, the SidecarSet, the chart and the tests' Pods are made from it. */
export const injectionSchema = z
  .strictObject({
    /** NAME of the pair NAME-1 and NAME-2: what a HotUpgrade calls `container`. */
    container: label.max(61).default('proxy'),
    /** Of the sidecar; its tag is the Envoy's version, where upgrades name versions. */
    image,
    emptyImage: image,
    /** Needs `sh` and `iptables`. Default: `image`. */
    redirectImage: image.optional(),
    pullPolicy: z.enum(['Always', 'IfNotPresent', 'Never']).optional(),
    /** ConfigMap in the namespace of each Pod. */
    bootstrap: z
      .strictObject({ configMap: configName.default('sluice-bootstrap'), key: key.default('envoy.json') })
      .prefault({}),
    /** API addresses of the controllers; none: agents decide alone. */
    controllers: z.array(url).default([]),
    /** The controller's xDS address, as Envoy reaches it. */
    xds: hostPort.optional(),
    /** Secret in the namespace of each Pod, with the token that proves an agent to the controller. */
    token: z.strictObject({ secret: configName, key: key.default('token') }).optional(),
    /** ConfigMap in the namespace of each Pod, so that the cluster's id is written once. */
    clusterId: z.strictObject({ configMap: configName, key: key.default('clusterId') }).optional(),
    /** Envoy's worker threads: the same for all versions, or a handover resets connections. */
    concurrency: z.number().int().min(1).max(1024).default(2),
    /** Native sidecars: init containers with `restartPolicy: Always`. Kubernetes 1.29 and newer; not with OpenKruise. */
    native: z.boolean().default(false),
    interception: interception.prefault({}),
    resources: z
      .strictObject({ requests: amounts.optional(), limits: amounts.optional() })
      .default({ requests: { cpu: '100m', memory: '128Mi' }, limits: { cpu: '2', memory: '1Gi' } }),
  })
  .refine(({ image, emptyImage }) => image !== emptyImage, {
    path: ['emptyImage'],
    message: 'expected another image than the sidecar’s',
  });

export type InjectionConfig = z.input<typeof injectionSchema>;
export type Injection = z.output<typeof injectionSchema>;

/** Throws CONFIG_INVALID naming the first wrong field. @param where such as `kubernetes.injection` */
export function parseInjection(config: unknown, where = 'injection'): Injection {
  return parsed(injectionSchema, config, where);
}

export function parsed<T>(schema: z.ZodType<T>, config: unknown, where: string): T {
  const result = schema.safeParse(config);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new SluiceError('CONFIG_INVALID', `${[where, ...(issue?.path ?? [])].join('.')}: ${issue?.message ?? 'wrong'}`);
}

/** An IPv4 or IPv6 address, or a block of them. */
export function isRange(text: string): boolean {
  const [address = '', bits, ...more] = text.split('/');
  const family = isIP(address);
  if (family === 0 || more.length > 0 || address.includes('%')) return false;
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
}
