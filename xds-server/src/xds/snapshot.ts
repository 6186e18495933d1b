/**
 * What one proxy (and epoch) is to have: immutable, every resource encoded once. Equal resources of different snapshots
 * are the same object, and so are the bytes that all streams send.
 */
import { createHash } from 'node:crypto';
import { SluiceError } from '@sluice/contract';
import { encodeMessage } from '../resources/encode.ts';
import { type Problem, showPath, toMessage } from '../resources/mapping.ts';
import { isObject, type JsonObject, type ResourceKind, type ResourcesByKind, typeOfKind } from '../resources/types.ts';
import { DELTA_RESOURCE, type Framed, field, framedAny, text } from './wire.ts';

/** One version of one resource. Compare by identity or by `version`. */
export interface Resource {
  readonly kind: ResourceKind;
  readonly name: string;
  /** Hash of the content. */
  readonly version: string;
  /** Small number that stands for this content in cache keys. */
  readonly id: number;
  /** EDS names that this cluster asks for: Envoy waits for them again whenever the cluster changes. */
  readonly endpoints: readonly string[];
  readonly framed: Framed;
}

export interface Snapshot {
  get(kind: ResourceKind, name: string): Resource | undefined;
  /** All resources of a kind, by name. */
  all(kind: ResourceKind): ReadonlyMap<string, Resource>;
  /** Nothing is known of this one yet: it is neither sent nor told to be gone. */
  withholds?(kind: ResourceKind, name: string): boolean;
}

/** Names of resources. */
export type NamesByKind = ReadonlyMap<ResourceKind, ReadonlySet<string>>;

const NONE: ReadonlyMap<string, Resource> = new Map();

/** Encodes resources and shares what is equal. One per server. */
export class Encoder {
  readonly #byJson = new WeakMap<JsonObject, Resource>();
  readonly #byHash = new Map<string, WeakRef<Resource>>();
  readonly #gone = new FinalizationRegistry<string>((hash) => {
    if (this.#byHash.get(hash)?.deref() === undefined) this.#byHash.delete(hash);
  });
  #nextId = 1;
  /** Resources encoded so far: tests look at it. */
  encoded = 0;

  /** Throws RESOURCE_INVALID with the path when `json` is not a resource of this kind. */
  encode(kind: ResourceKind, name: string, json: JsonObject): Resource {
    const known = this.#byJson.get(json);
    if (known !== undefined) return known;
    const { message } = typeOfKind(kind);
    const problems: Problem[] = [];
    const wire = toMessage(message, json, problems);
    const [problem] = problems;
    if (problem !== undefined) {
      throw new SluiceError(
        'RESOURCE_INVALID',
        `${kind.toUpperCase()} ${name}: ${showPath(problem.path)}: ${problem.message}`,
      );
    }
    this.encoded += 1;
    const resource = this.#intern(kind, name, json, encodeMessage(message, wire));
    this.#byJson.set(json, resource);
    return resource;
  }

  #intern(kind: ResourceKind, name: string, json: JsonObject, bytes: Buffer): Resource {
    const hash = createHash('sha256').update(`${kind}\0${name}\0`).update(bytes).digest('hex');
    const twin = this.#byHash.get(hash)?.deref();
    if (twin !== undefined) return twin;
    const version = hash.slice(0, 16);
    const any = framedAny(typeOfKind(kind).typeUrl, bytes);
    const resource: Resource = {
      kind,
      name,
      version,
      id: this.#nextId++,
      endpoints: kind === 'cds' ? endpointsOf(name, json) : [],
      framed: {
        sotw: field(DELTA_RESOURCE.inResponse, any),
        delta: field(
          DELTA_RESOURCE.inResponse,
          Buffer.concat([
            text(DELTA_RESOURCE.version, version),
            field(DELTA_RESOURCE.resource, any),
            text(DELTA_RESOURCE.name, name),
          ]),
        ),
      },
    };
    this.#byHash.set(hash, new WeakRef(resource));
    this.#gone.register(resource, hash);
    return resource;
  }
}

function endpointsOf(name: string, cluster: JsonObject): string[] {
  const eds = cluster.eds_cluster_config;
  if (!isObject(eds)) return [];
  const service = eds.service_name;
  return [typeof service === 'string' && service !== '' ? service : name];
}

/** `withheld`: names by kind, which are not among the resources. */
export function buildSnapshot(resources: ResourcesByKind, encoder: Encoder, withheld?: NamesByKind): Snapshot {
  const kinds = new Map<ResourceKind, ReadonlyMap<string, Resource>>();
  for (const [kind, byName] of resources) {
    kinds.set(kind, new Map([...byName].map(([name, json]) => [name, encoder.encode(kind, name, json)])));
  }
  return {
    get: (kind, name) => kinds.get(kind)?.get(name),
    all: (kind) => kinds.get(kind) ?? NONE,
    ...(withheld !== undefined && {
      withholds: (kind: ResourceKind, name: string) => withheld.get(kind)?.has(name) ?? false,
    }),
  };
}
