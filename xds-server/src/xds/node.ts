import { NODE_METADATA } from '@sluice/contract';

/** Who is at the other end of a stream. */
export interface XdsNode {
  /** Name of the proxy. */
  readonly id: string;
  readonly cluster: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** 0 for an Envoy that no agent started. */
  readonly epoch: number;
  readonly slot: string;
  /** Path of the filter where this Envoy runs; undefined: it has none. */
  readonly wasm: string | undefined;
  readonly userAgentVersion: string;
}

interface ProtoValue {
  readonly stringValue?: string | null;
  readonly numberValue?: number | null;
  readonly boolValue?: boolean | null;
  readonly structValue?: ProtoStruct | null;
  readonly listValue?: { readonly values?: readonly ProtoValue[] | null } | null;
}
interface ProtoStruct {
  readonly fields?: Readonly<Record<string, ProtoValue>> | null;
}

function plain(value: ProtoValue): unknown {
  if (value.structValue) return fromStruct(value.structValue);
  if (value.listValue) return (value.listValue.values ?? []).map(plain);
  return own(value, 'stringValue') ?? own(value, 'numberValue') ?? own(value, 'boolValue') ?? null;
}

/** Generated messages have defaults on their prototype: only what was sent counts. */
function own<K extends keyof ProtoValue>(value: ProtoValue, key: K): ProtoValue[K] | undefined {
  return Object.hasOwn(value, key) ? value[key] : undefined;
}

function fromStruct(struct: ProtoStruct | null | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(struct?.fields ?? {}).map(([key, value]) => [key, plain(value)]));
}

export interface ProtoNode {
  readonly id?: string | null;
  readonly cluster?: string | null;
  readonly metadata?: ProtoStruct | null;
  readonly user_agent_version?: string | null;
  readonly user_agent_build_version?: {
    readonly version?: {
      readonly major_number?: number | null;
      readonly minor_number?: number | null;
      readonly patch?: number | null;
    } | null;
  } | null;
}

/** undefined: the request names no node, or a node without an id. */
export function toNode(node: ProtoNode | null | undefined): XdsNode | undefined {
  if (!node?.id) return undefined;
  const metadata = fromStruct(node.metadata);
  const text = (key: string): string | undefined => {
    const value = metadata[key];
    return typeof value === 'string' && value !== '' ? value : undefined;
  };
  const epoch = Number(text(NODE_METADATA.epoch) ?? 0);
  const build = node.user_agent_build_version?.version;
  return {
    // A node.id of the user's own is kept by the presets; the proxy's name then stands in the metadata.
    id: text(NODE_METADATA.proxy) ?? node.id,
    cluster: node.cluster ?? '',
    metadata,
    epoch: Number.isSafeInteger(epoch) && epoch >= 0 ? epoch : 0,
    slot: text(NODE_METADATA.slot) ?? '',
    wasm: text(NODE_METADATA.wasm),
    userAgentVersion: build
      ? `${build.major_number ?? 0}.${build.minor_number ?? 0}.${build.patch ?? 0}`
      : (node.user_agent_version ?? ''),
  };
}
