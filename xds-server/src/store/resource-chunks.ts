import { randomBytes } from 'node:crypto';
import { isReason, type Kind } from '../kube/client.ts';
import { metadataOf, OWNER_LABEL, RECORD_CHUNKS, type StateApi, type StateObject } from './resource-api.ts';
import { FORMAT, type Payload } from './resource-payload.ts';

export interface ChunkSpec {
  readonly of: string;
  readonly part: 'record' | 'ended';
  readonly from: number;
  readonly count: number;
  readonly dropped?: number;
  readonly format: number;
  readonly write: string;
  readonly items: Payload;
}

/** Chunks of one object, by the number of their first item. */
export async function chunksOf(
  api: StateApi,
  uid: string,
  part: ChunkSpec['part'],
): Promise<readonly StateObject<ChunkSpec>[]> {
  const all = await api.list<ChunkSpec>(RECORD_CHUNKS, `${OWNER_LABEL}=${uid}`);
  return all.filter(({ spec }) => spec.part === part).sort((a, b) => a.spec.from - b.spec.from);
}

/**
 * Makes a chunk, whose owner's end is its end. `over`: replaces the one of that version, or whatever is there; without it one that is
 * there is refused with AlreadyExists.
 */
export async function putChunk(
  api: StateApi,
  { apiVersion, kind }: Kind,
  { name, uid }: { readonly name: string; readonly uid: string },
  chunk: Omit<ChunkSpec, 'format' | 'write'>,
  over?: { readonly version: string } | 'any',
): Promise<StateObject<ChunkSpec>> {
  const spec: ChunkSpec = { ...chunk, format: FORMAT, write: randomBytes(8).toString('hex') };
  const metadata = {
    name: `${uid}-${chunk.part}-${chunk.from}`,
    labels: { [OWNER_LABEL]: uid },
    ownerReferences: [{ apiVersion, kind, name, uid }],
  };
  if (over !== undefined && over !== 'any')
    return api.replace(RECORD_CHUNKS, { metadata: { ...metadata, resourceVersion: over.version } }, spec);
  try {
    return await api.create(RECORD_CHUNKS, { metadata }, spec);
  } catch (error) {
    if (over === undefined || !isReason(error, 'AlreadyExists')) throw error;
    // Custom resources are not replaced without a version.
    const there = await api.get<ChunkSpec>(RECORD_CHUNKS, metadata.name);
    if (there === undefined) throw error;
    // Of a replica that knows more: it has grown on.
    if (there.spec.count >= chunk.count) return there;
    const { resourceVersion } = metadataOf(there);
    return api.replace(RECORD_CHUNKS, { metadata: { ...metadata, resourceVersion } }, spec);
  }
}
