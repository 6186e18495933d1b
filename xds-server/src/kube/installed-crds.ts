import type { KubeClient } from './client.ts';
import { CRDS, GROUP, VERSION } from './crds.ts';

interface OpenApi {
  readonly components?: { readonly schemas?: Readonly<Record<string, Node>> };
}

interface Node {
  readonly properties?: Readonly<Record<string, Node>>;
  readonly items?: Node;
  readonly allOf?: readonly Node[];
  readonly $ref?: string;
  readonly 'x-kubernetes-group-version-kind'?: readonly { readonly group: string; readonly kind: string }[];
}

/**
 * Fields of a kind that the API server does not know and so would drop without a word, as paths such as `spec.strategy.canary`; the
 * kind alone where there is no such kind. Read from the API server's own OpenAPI, which every ServiceAccount may read
 * (ClusterRole system:discovery); CRDs themselves may not be.
 */
export async function missingFields(
  client: Pick<KubeClient, 'json'>,
  kinds: readonly string[],
  signal?: AbortSignal,
): Promise<Readonly<Record<string, readonly string[]>>> {
  const path = `/openapi/v3/apis/${GROUP}/${VERSION}`;
  const told = await client.json<OpenApi>('GET', path, { signal }).catch((error: { status?: number }) => {
    // Not one kind of the group is there.
    if (error.status === 404) return {} as OpenApi;
    throw error;
  });
  const served = Object.values(told.components?.schemas ?? {});
  return Object.fromEntries(
    kinds.map((kind) => {
      const found = served.find((one) =>
        one['x-kubernetes-group-version-kind']?.some((gvk) => gvk.group === GROUP && gvk.kind === kind),
      );
      return [kind, found === undefined ? [kind] : lacking(ownSchema(kind), found)];
    }),
  );
}

interface Crd {
  readonly spec: {
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly schema: { readonly openAPIV3Schema: Node } }[];
  };
}

function ownSchema(kind: string): Node {
  const crd = (Object.values(CRDS) as unknown as Crd[]).find((one) => one.spec.names.kind === kind);
  return crd?.spec.versions[0]?.schema.openAPIV3Schema ?? {};
}

export function lacking(own: Node, served: Node, path = ''): string[] {
  return Object.entries(own.properties ?? {}).flatMap(([name, one]) => {
    const at = path === '' ? name : `${path}.${name}`;
    // Served by every API server alike, and told by reference.
    if (path === '' && name !== 'spec' && name !== 'status') return [];
    const other = served.properties?.[name];
    if (other === undefined) return [at];
    return [
      ...lacking(one, other, at),
      ...(one.items && other.items ? lacking(one.items, other.items, `${at}[]`) : []),
    ];
  });
}

/** A status without the fields that an older CRD does not have: server-side apply would refuse all of it for one of them. */
export function withoutMissing<T extends object>(status: T, missing: readonly string[]): Partial<T> {
  return Object.fromEntries(
    Object.entries(status).filter(([name]) => !missing.includes(`status.${name}`)),
  ) as Partial<T>;
}
