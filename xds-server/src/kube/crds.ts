import {
  choice,
  conditionsSchema,
  fenceRules,
  fenceSchema,
  flag,
  list,
  object,
  policySchema,
  rules,
  type Schema,
  text,
  whole,
} from './schema.ts';
import { STATE_KINDS } from './state-crds.ts';

export const GROUP = 'sluice.dev';
export const VERSION = 'v1alpha1';
export const API_VERSION = `${GROUP}/${VERSION}`;

const DNS_LABEL = '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$';
const DNS_NAME = '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$';
const LABEL_VALUE = '^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$';
const MAX_S = 604_800;

/**
 * A number of Pods, or a part of them. `one`: of at least one Pod. A pattern and a minimum and no CEL rule: the API server reckons
 * a text of this kind as long as a request may be, which makes each rule dearer than it allows.
 */
function amount(one: boolean, more: Schema = {}): Schema {
  return {
    'x-kubernetes-int-or-string': true,
    minimum: one ? 1 : 0,
    pattern: one ? '^(100|[1-9][0-9]?)%$' : '^(100|[1-9]?[0-9])%$',
    ...more,
  };
}

const selector = object(
  {
    matchLabels: {
      type: 'object',
      additionalProperties: { type: 'string', maxLength: 63, pattern: LABEL_VALUE },
      maxProperties: 64,
    },
    matchExpressions: list(
      object(
        {
          key: text(317),
          operator: choice(['In', 'NotIn', 'Exists', 'DoesNotExist']),
          values: list({ type: 'string', maxLength: 63, pattern: LABEL_VALUE }, 64, {
            'x-kubernetes-list-type': 'atomic',
          }),
        },
        {
          required: ['key', 'operator'],
          ...rules({
            rule: "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
            message: 'In and NotIn have values, Exists and DoesNotExist have none',
          }),
        },
      ),
      32,
      { 'x-kubernetes-list-type': 'atomic' },
    ),
  },
  {
    'x-kubernetes-map-type': 'atomic',
    ...rules(
      {
        rule: '(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)',
        message: 'an empty selector would take every Pod',
      },
      { rule: 'self == oldSelf', message: 'the selector can not be changed: make another HotUpgrade' },
    ),
  },
);

const strategy = object(
  {
    partition: amount(false, { default: 0, description: 'So many Pods keep the image that they have.' }),
    maxUnavailable: amount(true, { default: 1 }),
    canary: amount(false, { description: 'The first stage; 1 without.' }),
    canaryPods: list(text(253), 100, {
      minItems: 1,
      'x-kubernetes-list-type': 'atomic',
      description: 'The first stage, by names or patterns with *.',
    }),
    batches: list(amount(true), 64, {
      'x-kubernetes-list-type': 'atomic',
      description: 'Stages after the canary, each as the sum of all so far; the last one is all. Without: one stage.',
    }),
    pauseSeconds: whole(0, MAX_S, { default: 0, description: 'Between two stages.' }),
    promotion: choice(['Auto', 'Manual'], { default: 'Auto', description: 'Manual: each stage waits to be promoted.' }),
    topologyKey: text(317, { description: 'Label of the Pods whose values get their turns evenly.' }),
    until: choice(['Serving', 'Reset'], {
      default: 'Serving',
      description: 'A Pod counts as unavailable until the target serves, or until its old epochs have ended.',
    }),
    paused: { ...flag, default: false, description: 'No further Pod is begun.' },
  },
  {
    default: {},
    ...rules({
      rule: '!has(self.canary) || !has(self.canaryPods)',
      message: 'at most one of canary and canaryPods is given',
    }),
  },
);

const count = whole(0, Number.MAX_SAFE_INTEGER);

const LIMITS = ['maxFailedUpgrades', 'maxFailedRequests', 'maxCutConnections', 'maxCrashes', 'maxP99Ms'];
const analysis = object(
  {
    windowSeconds: whole(1, 86_400, {
      default: 60,
      description: "So long a stage is watched by the controller's source of metrics, after its last Pod serves.",
    }),
    maxFailedUpgrades: count,
    maxFailedRequests: count,
    maxCutConnections: count,
    maxCrashes: count,
    maxP99Ms: whole(1, 3_600_000),
    onFailure: choice(['Pause', 'Rollback'], { default: 'Rollback' }),
  },
  {
    ...rules({
      rule: LIMITS.map((name) => `has(self.${name})`).join(' || '),
      message: 'an analysis has at least one limit',
    }),
  },
);

const hotUpgradeSpec = object(
  {
    selector,
    container: text(61, {
      pattern: DNS_LABEL,
      description: 'NAME of the pair of containers NAME-1 and NAME-2.',
      ...rules({ rule: 'self == oldSelf', message: 'the container can not be changed: make another HotUpgrade' }),
    }),
    target: object(
      { image: text(1024), version: text(128, { pattern: '^[A-Za-z0-9_][-A-Za-z0-9_.]*$' }) },
      {
        description: 'What is to serve: an image, or a version, which is the tag of the image that serves now.',
        ...rules({
          rule: 'has(self.image) != has(self.version)',
          message: 'exactly one of image and version is given',
        }),
      },
    ),
    provider: choice(['InPlace', 'OpenKruise'], { default: 'InPlace' }),
    emptyImage: text(1024),
    sidecarSet: text(253, { pattern: DNS_NAME }),
    policy: object(
      { inline: policySchema, name: text(253, { pattern: DNS_NAME }) },
      {
        description: 'A drain policy, or the name of a DrainPolicy of the same namespace; the default one without.',
        ...rules({
          rule: 'has(self.inline) != has(self.name)',
          message: 'exactly one of inline and name is given',
        }),
      },
    ),
    strategy,
    analysis,
  },
  {
    required: ['selector', 'container', 'target'],
    ...rules(
      {
        rule: "(self.provider == 'InPlace') == has(self.emptyImage)",
        message: 'emptyImage belongs to provider InPlace, which needs it',
      },
      {
        rule: "(self.provider == 'OpenKruise') == has(self.sidecarSet)",
        message: 'sidecarSet belongs to provider OpenKruise, which needs it',
      },
      {
        rule: '!has(self.emptyImage) || !has(self.target.image) || self.emptyImage != self.target.image',
        message: 'the target is the Empty image',
      },
    ),
  },
);

const hotUpgradeStatus = object(
  {
    observedGeneration: count,
    fence: fenceSchema,
    conditions: conditionsSchema,
    phase: choice([
      'Pending',
      'Progressing',
      'Paused',
      'RollingBack',
      'RolledBack',
      'Aborting',
      'Aborted',
      'Failed',
      'Done',
    ]),
    reason: { type: 'string', maxLength: 1024 },
    rollout: { type: 'string', maxLength: 253, description: 'Id of its rollout, for `sluice rollout`.' },
    image: { type: 'string', maxLength: 1024, description: 'The target, resolved.' },
    stage: { ...count, description: 'The stage under way, from 1.' },
    stages: count,
    total: { ...count, description: 'Pods that have a part in it.' },
    updated: { ...count, description: 'Pods that the target serves.' },
    draining: { ...count, description: 'Of those, the ones whose old epochs have connections yet.' },
    ready: { ...count, description: 'Pods that are Ready and whose agents say that they serve.' },
    failed: count,
    deleted: { ...count, description: 'Pods that were deleted in the middle of their upgrade.' },
    refused: list(
      object(
        { pod: text(253), reason: text(128), message: { type: 'string', maxLength: 1024 } },
        { required: ['pod', 'reason', 'message'] },
      ),
      20,
      { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['pod'] },
    ),
  },
  fenceRules,
);

interface Column {
  readonly name: string;
  readonly type: string;
  readonly jsonPath: string;
  readonly description?: string;
  readonly priority?: number;
}

interface Names {
  readonly kind: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
}

/** `status`: undefined for a kind that has none. */
function crd(
  { kind, plural, shortNames }: Names,
  spec: Schema,
  status: Schema | undefined,
  columns: readonly Column[],
): Schema {
  const age: Column = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${GROUP}` },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        shortNames,
        // `kubectl get sluice` shows what people write; the state is there by its own word.
        categories: [status === undefined ? 'sluice-state' : 'sluice'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          ...(status !== undefined && { subresources: { status: {} } }),
          additionalPrinterColumns: [...columns, age],
          schema: {
            openAPIV3Schema: object(
              {
                apiVersion: { type: 'string' },
                kind: { type: 'string' },
                metadata: { type: 'object' },
                spec,
                ...(status !== undefined && { status }),
              },
              { required: ['spec'] },
            ),
          },
        },
      ],
    },
  };
}

const stateCrds = Object.entries(STATE_KINDS).map(([file, { spec, columns, ...names }]) => {
  const shown = columns.map(
    ([name, type, field, wide]): Column => ({
      name,
      type,
      jsonPath: `.spec.${field}`,
      ...(wide !== undefined && { priority: 1 }),
    }),
  );
  return [file, crd(names, spec, undefined, shown)] as const;
});

const condition = (type: string, field: string) => `.status.conditions[?(@.type=="${type}")].${field}`;

/** The custom resource definitions by file name; `node --conditions=sluice-source scripts/crds.ts` writes deploy/crds of them. */
export const CRDS: Readonly<Record<string, Schema>> = {
  'hotupgrades.yaml': crd(
    { kind: 'HotUpgrade', plural: 'hotupgrades', shortNames: ['hup'] },
    hotUpgradeSpec,
    hotUpgradeStatus,
    [
      { name: 'Target', type: 'string', jsonPath: '.status.image' },
      { name: 'Phase', type: 'string', jsonPath: '.status.phase' },
      { name: 'Updated', type: 'integer', jsonPath: '.status.updated', description: 'Pods that the target serves' },
      { name: 'Total', type: 'integer', jsonPath: '.status.total' },
      { name: 'Draining', type: 'integer', jsonPath: '.status.draining' },
      { name: 'Failed', type: 'integer', jsonPath: '.status.failed', priority: 1 },
      { name: 'Reason', type: 'string', jsonPath: '.status.reason', priority: 1 },
    ],
  ),
  'drainpolicies.yaml': crd(
    { kind: 'DrainPolicy', plural: 'drainpolicies', shortNames: ['drp'] },
    policySchema,
    object({ observedGeneration: count, fence: fenceSchema, conditions: conditionsSchema }, fenceRules),
    [
      { name: 'Max Drain (ms)', type: 'integer', jsonPath: '.spec.maxDrainMs' },
      { name: 'At Deadline', type: 'string', jsonPath: '.spec.atDeadline' },
      { name: 'Accepted', type: 'string', jsonPath: condition('Accepted', 'status') },
      { name: 'Reason', type: 'string', jsonPath: condition('Accepted', 'message'), priority: 1 },
    ],
  ),
  ...Object.fromEntries(stateCrds),
};
