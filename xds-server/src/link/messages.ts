import { type AgentMessage, type Hello, MAX_OVERRIDE_TEXT, SluiceError } from '@sluice/contract';
import { z } from 'zod';

const id = z.string().min(1).max(128);
const name = z.string().min(1).max(253);
const epochNumber = z.number().int().min(0);
const instant = z.number().finite();
const count = z.number().int().min(0);

const connection = z.looseObject({ epoch: epochNumber, id: z.string(), peer: z.string(), protocol: z.string() });
const verdict = z.looseObject({
  safe: z.boolean(),
  summary: z.string(),
  at: instant,
  total: count,
  protected: count,
  held: z.array(z.looseObject({ connection, protected: z.boolean(), reason: z.string() })).max(1_000),
  witnesses: z.array(z.looseObject({ name: z.string(), at: instant })).max(10),
  pastDeadline: z.boolean(),
});
const epoch = z.looseObject({
  epoch: epochNumber,
  slot: name,
  state: z.enum(['starting', 'serving', 'draining', 'ended', 'crashed']),
  version: z.string(),
  pid: z.number().int(),
  startedAt: instant,
  upgradeId: z.string().optional(),
  method: z.string().optional(),
  verdict: verdict.optional(),
});
const epochs = z.array(epoch).max(1_000);
const checks = z.array(z.looseObject({ name: z.string(), ok: z.boolean(), found: z.string() })).max(200);
const target = z.looseObject({
  to: z.string().min(1),
  bootstrap: z.string().optional(),
  method: z.string().optional(),
});

const SCHEMAS = {
  hello: z.looseObject({
    v: z.number().int(),
    proxy: name,
    slot: name,
    agentVersion: z.string(),
    identity: z.looseObject({ token: z.string().optional() }),
    epochs,
    versions: z.array(z.string()).max(1_000),
    memory: z.looseObject({ agentRss: z.number() }).optional(),
    labels: z.record(z.string().max(253), z.string().max(253)).optional(),
  }),
  ping: z.looseObject({}),
  epochs: z.looseObject({ epochs }),
  preflight: z.looseObject({
    upgradeId: id,
    ok: z.boolean(),
    checks,
    from: z.string().optional(),
    to: z.string().optional(),
  }),
  serving: z.looseObject({
    upgradeId: id,
    epoch: epochNumber,
    // -1: its agent does not know any more what it replaced.
    oldEpoch: z.number().int(),
    oldSlot: name.optional(),
    from: z.string(),
    to: z.string(),
    at: instant,
    method: z.string(),
  }),
  failed: z.looseObject({
    upgradeId: id,
    code: z.string(),
    message: z.string(),
    servingEpoch: z.number().int(),
    rolledBack: z.boolean(),
  }),
  orderApplied: z.looseObject({
    upgradeId: id,
    epoch: epochNumber,
    version: count,
    via: z.string(),
    at: instant,
  }),
  // The agent names the upgrade that ended the epoch, or nothing when it does not know it any more.
  verdict: z.looseObject({ upgradeId: z.string().max(128), epoch: epochNumber, verdict }),
  reset: z.looseObject({
    upgradeId: z.string().max(128),
    epoch: epochNumber,
    at: instant,
    drained: count,
    old: count,
    cut: z.array(connection).max(10_000),
    why: z.string().max(1_000).optional(),
    override: z
      .looseObject({ by: z.string().max(MAX_OVERRIDE_TEXT), reason: z.string().max(MAX_OVERRIDE_TEXT), at: instant })
      .optional(),
  }),
  ended: z.looseObject({
    upgradeId: z.string().max(128),
    epoch: epochNumber,
    items: z
      .array(
        z.looseObject({
          connection,
          at: instant,
          how: z.enum(['left', 'closed-idle', 'cut', 'crashed']),
          lever: z.string(),
          reason: z.string(),
          rule: z.string(),
        }),
      )
      .max(1_000),
    dropped: count,
  }),
  crashed: z.looseObject({ epoch: epochNumber, at: instant, relaunchedAs: epochNumber.optional() }),
  connections: z.looseObject({
    requestId: id,
    connections: z.array(connection).max(100_000),
    truncated: z.boolean(),
    error: z.string().optional(),
  }),
  checked: z.looseObject({
    requestId: id,
    ok: z.boolean(),
    checks,
    notes: z
      .array(z.looseObject({ about: z.string(), level: z.enum(['info', 'warn']), text: z.string() }))
      .max(200)
      .optional(),
  }),
  propose: z.looseObject({ target, reason: z.string() }),
} satisfies Record<AgentMessage['type'], z.ZodType>;

/**
 * A line of the link as a message. undefined: a type that this controller does not know (a newer agent's). Throws
 * INPUT_INVALID naming the field.
 */
export function readAgentMessage(line: Record<string, unknown>): AgentMessage | undefined {
  const { type } = line;
  if (typeof type !== 'string') throw new SluiceError('INPUT_INVALID', 'type: expected a string');
  if (!Object.hasOwn(SCHEMAS, type)) return undefined;
  const result = SCHEMAS[type as keyof typeof SCHEMAS].safeParse(line);
  if (!result.success) {
    const issue = result.error.issues[0];
    const path = issue?.path.join('.') || 'message';
    throw new SluiceError('INPUT_INVALID', `message ${type}: ${path}: ${issue?.message ?? 'wrong'}`);
  }
  return result.data as unknown as AgentMessage;
}

export function isHello(message: AgentMessage): message is Hello {
  return message.type === 'hello';
}
