import { MAX_DURATION_MS, MAX_RULES, PROTOCOLS } from '@sluice/contract';

/** A structural schema of apiextensions.k8s.io/v1, as far as ours go. */
export interface Schema {
  readonly [key: string]: unknown;
}

/** A CEL rule and what the API server says when it does not hold. */
export interface Rule {
  readonly rule: string;
  readonly message: string;
}

export const rules = (...list: readonly Rule[]): Schema => ({ 'x-kubernetes-validations': list });
export const object = (properties: Readonly<Record<string, Schema>>, more: Schema = {}): Schema => ({
  type: 'object',
  properties,
  ...more,
});
export const list = (items: Schema, maxItems: number, more: Schema = {}): Schema => ({
  type: 'array',
  items,
  maxItems,
  ...more,
});
export const text = (maxLength: number, more: Schema = {}): Schema => ({
  type: 'string',
  minLength: 1,
  maxLength,
  ...more,
});
export const choice = (values: readonly string[], more: Schema = {}): Schema => ({
  type: 'string',
  enum: values,
  ...more,
});
export const whole = (minimum: number, maximum: number, more: Schema = {}): Schema => ({
  type: 'integer',
  format: 'int64',
  minimum,
  maximum,
  ...more,
});
export const flag: Schema = { type: 'boolean' };

const duration = whole(0, MAX_DURATION_MS);
const atDeadline = choice(['wait', 'ask', 'reset']);
const entries = (items: Schema): Schema => list(items, 256, { minItems: 1, 'x-kubernetes-list-type': 'atomic' });

/** IP addresses and CIDR blocks are read by the API server's own CEL library. */
const peer = text(256, {
  ...rules({
    rule: "self.contains('/') ? isCIDR(self) : isIP(self)",
    message: 'expected an IP address or a CIDR block',
  }),
});

const policyRule = object(
  {
    name: text(256),
    match: object({
      listeners: entries(text(256)),
      protocols: entries(choice(PROTOCOLS)),
      routes: entries(text(256)),
      peers: entries(peer),
    }),
    nudge: flag,
    protect: flag,
    protectMs: duration,
    silentIdleGraceMs: duration,
    cutOrder: whole(0, 1_000_000),
    atDeadline,
  },
  { required: ['name', 'match'] },
);

/**
 * A drain policy (contract/src/policy.ts): the values that replace the default ones. `parsePolicy` and this accept the same; a test
 * holds them against each other. One bound is `parsePolicy`'s alone: the size of the whole policy as JSON.
 */
export const policySchema: Schema = object({
  http2: object({ goaway: flag }),
  http1: object({ silentIdleGraceMs: duration }),
  upgrades: object({ protect: flag }),
  tcp: object({ protect: flag }),
  maxDrainMs: { ...duration, description: 'Longest drain, in milliseconds; 0 = no limit by time.' },
  atDeadline,
  memory: object({ budgetMiB: whole(0, 1_048_576) }),
  pacing: object({
    perSecond: whole(0, 1_000_000),
    order: choice(['oldest', 'idlest']),
    scope: choice(['proxy', 'fleet']),
    adapt: flag,
  }),
  // The order counts, the first rule that matches holds: so the list is one value and no map by name.
  rules: list(policyRule, MAX_RULES, {
    'x-kubernetes-list-type': 'atomic',
    ...rules({
      rule: 'self.all(a, self.exists_one(b, b.name == a.name))',
      message: 'the names of rules are unique',
    }),
  }),
});

/** metav1.Condition, a map by type: writers of different types do not undo each other. */
export const conditionsSchema: Schema = list(
  object(
    {
      type: text(316, { pattern: '^[A-Z][A-Za-z]*$' }),
      status: choice(['True', 'False', 'Unknown']),
      reason: text(1024, { pattern: '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$' }),
      message: { type: 'string', maxLength: 32_768 },
      lastTransitionTime: { type: 'string', format: 'date-time' },
      observedGeneration: whole(0, Number.MAX_SAFE_INTEGER),
    },
    { required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'] },
  ),
  16,
  { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] },
);

export const LATER_LEADER = 'a later leader has written this status already';

/**
 * Term of the leader that wrote a status (election.ts). The API server itself refuses a writer whose term is over, once the
 * next one has written.
 */
export const fenceRules: Schema = rules({
  rule: '!has(oldSelf.fence) || (has(self.fence) && self.fence >= oldSelf.fence)',
  message: LATER_LEADER,
});
export const fenceSchema: Schema = whole(0, Number.MAX_SAFE_INTEGER);
