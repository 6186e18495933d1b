/** Small snapshots for the tests of this folder. */
import type { JsonObject, ResourceKind } from '../resources/types.ts';
import { typeOfKind } from '../resources/types.ts';
import { buildSnapshot, Encoder, type Snapshot } from './snapshot.ts';

/** A resource whose content is told apart by `mark` alone. */
export function resource(kind: ResourceKind, name: string, mark: number): JsonObject {
  const named = { [typeOfKind(kind).nameField]: name };
  switch (kind) {
    case 'cds':
      return { ...named, type: 'EDS', eds_cluster_config: {}, max_requests_per_connection: mark };
    case 'eds':
      return { ...named, policy: { overprovisioning_factor: mark + 1 } };
    case 'sds':
      return { ...named, generic_secret: { secret: { inline_string: `s${mark}` } } };
    case 'lds':
      return { ...named, per_connection_buffer_limit_bytes: mark };
    case 'rds':
      return { ...named, max_direct_response_body_size_bytes: mark };
    case 'ecds':
      return { ...named, typed_config: { '@type': 'type.googleapis.com/example.Filter', mark } };
    case 'rtds':
      return { ...named, layer: { mark } };
  }
}

export type Marks = Readonly<Partial<Record<ResourceKind, Readonly<Record<string, number>>>>>;

/** `{ cds: { one: 1 } }` -> a snapshot with cluster `one`, content 1. */
export function snapshot(marks: Marks, encoder = new Encoder()): Snapshot {
  return buildSnapshot(
    new Map(
      Object.entries(marks).map(([kind, byName]) => [
        kind as ResourceKind,
        new Map(Object.entries(byName).map(([name, mark]) => [name, resource(kind as ResourceKind, name, mark)])),
      ]),
    ),
    encoder,
  );
}
