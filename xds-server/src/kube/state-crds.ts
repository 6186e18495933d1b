import { fenceRules, fenceSchema, list, object, type Schema, text, whole } from './schema.ts';

/**
 * The controller's own state as custom resources, in its own namespace. Nobody else writes them; people look at them.
 *
 * What counts is one text: JSON, or JSON that is gzipped and then base64 where it is long. Not an object of which the API server
 * keeps unknown fields: it would note each of those fields once more in managedFields, turn them over at each write, and could
 * not say how large they are. Beside it stand the few fields that `kubectl get` shows.
 */
const payload = (description: string): Schema =>
  object(
    { json: { type: 'string', maxLength: 262_144 }, gzip: { type: 'string', maxLength: 1_400_000 } },
    { description },
  );

const id = text(2048, { description: 'The name is made of it: xds-server/src/store/resource-names.ts.' });
const time = whole(0, Number.MAX_SAFE_INTEGER);
const format = whole(1, 1_000_000, { description: 'Of the payload; a controller refuses what a newer one wrote.' });
const write = text(128, { description: 'Which write this is: one whose answer was lost is known by it.' });
const line = (description: string): Schema => ({ type: 'string', maxLength: 1024, description });
const count = whole(0, Number.MAX_SAFE_INTEGER);

const document = {
  id,
  createdAt: time,
  format,
  write,
  phase: text(64),
  target: line('What is to serve.'),
  reason: line('Why the phase is what it is.'),
  state: payload('The whole state.'),
  record: payload('The newest entries of the record.'),
  spilled: { ...count, description: 'Entries before those: in RecordChunks.' },
};
const REQUIRED = ['id', 'createdAt', 'format', 'write', 'phase', 'state', 'record', 'spilled'];

const proxyUpgrade = object({ ...document, proxy: text(2048) }, { required: [...REQUIRED, 'proxy'] });

const proxyRollout = object(
  { ...document, fence: fenceSchema, total: count, updated: count, busy: count, failed: count },
  { required: REQUIRED, ...fenceRules },
);

const meshProxy = object(
  {
    proxy: id,
    format,
    write,
    serving: line('Version that serves.'),
    draining: { ...count, description: 'Epochs that drain.' },
    podUid: { type: 'string', maxLength: 128 },
    replicas: line('Which replicas hold the links of its agents.'),
    slots: list(
      object({ slot: text(256), row: payload('What its agent said last.') }, { required: ['slot', 'row'] }),
      16,
      { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['slot'] },
    ),
  },
  { required: ['proxy', 'format', 'write', 'slots'] },
);

const recordChunk = object(
  {
    of: id,
    part: text(64, { enum: ['record', 'ended'] }),
    from: { ...count, description: 'Number of its first item.' },
    count,
    dropped: { ...count, description: 'So many more ends were not kept one by one.' },
    format,
    write,
    items: payload('The items, a list.'),
  },
  { required: ['of', 'part', 'from', 'count', 'format', 'write', 'items'] },
);

interface StateKind {
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly spec: Schema;
  /** Name, type and field of spec; `wide`: only with -o wide. */
  readonly columns: readonly (readonly [name: string, type: string, field: string, wide?: 'wide'])[];
}

/** By file name. */
export const STATE_KINDS: Readonly<Record<string, StateKind>> = {
  'meshproxies.yaml': {
    kind: 'MeshProxy',
    plural: 'meshproxies',
    shortNames: ['mpx'],
    spec: meshProxy,
    columns: [
      ['Serving', 'string', 'serving'],
      ['Draining', 'integer', 'draining'],
      ['Replicas', 'string', 'replicas'],
      ['Proxy', 'string', 'proxy', 'wide'],
    ],
  },
  'proxyupgrades.yaml': {
    kind: 'ProxyUpgrade',
    plural: 'proxyupgrades',
    shortNames: ['pup'],
    spec: proxyUpgrade,
    columns: [
      ['Proxy', 'string', 'proxy'],
      ['Target', 'string', 'target'],
      ['Phase', 'string', 'phase'],
      ['Reason', 'string', 'reason', 'wide'],
    ],
  },
  'proxyrollouts.yaml': {
    kind: 'ProxyRollout',
    plural: 'proxyrollouts',
    shortNames: ['pro'],
    spec: proxyRollout,
    columns: [
      ['Target', 'string', 'target'],
      ['Phase', 'string', 'phase'],
      ['Updated', 'integer', 'updated'],
      ['Total', 'integer', 'total'],
      ['Busy', 'integer', 'busy'],
      ['Failed', 'integer', 'failed'],
      ['Reason', 'string', 'reason', 'wide'],
    ],
  },
  'recordchunks.yaml': {
    kind: 'RecordChunk',
    plural: 'recordchunks',
    shortNames: ['rch'],
    spec: recordChunk,
    columns: [
      ['Of', 'string', 'of'],
      ['Part', 'string', 'part'],
      ['From', 'integer', 'from'],
      ['Count', 'integer', 'count'],
    ],
  },
};
