import { type ControllerMessage, SluiceError } from '@sluice/contract';

type Kind = 'string' | 'number' | 'object';

/** The fields that a message can not be acted upon without; everything else may be absent or unknown. */
const REQUIRED: Record<ControllerMessage['type'], Readonly<Record<string, Kind>>> = {
  welcome: { v: 'number' },
  refused: { code: 'string', message: 'string' },
  moved: { url: 'string' },
  ping: {},
  preflight: { upgradeId: 'string', 'target.to': 'string' },
  start: { upgradeId: 'string', 'target.to': 'string', policy: 'object', 'policy.maxDrainMs': 'number' },
  drain: {
    'order.v': 'number',
    'order.upgradeId': 'string',
    'order.epoch': 'number',
    'order.version': 'number',
    'order.action': 'string',
    'order.cutoffAgeMs': 'number',
    'order.issuedAt': 'number',
    'order.policy': 'object',
    'order.policy.maxDrainMs': 'number',
  },
  reset: { upgradeId: 'string', epoch: 'number' },
  abort: { upgradeId: 'string' },
  connections: { requestId: 'string', limit: 'number' },
  check: { requestId: 'string', 'target.to': 'string' },
  listenersChanged: { epoch: 'number' },
};

/** A line of the controller as a message; undefined for a type that this agent is too old to know. Throws INPUT_INVALID. */
export function readControllerMessage(line: Record<string, unknown>): ControllerMessage | undefined {
  const { type } = line;
  if (typeof type !== 'string') throw new SluiceError('INPUT_INVALID', 'expected a message with a type, found none');
  if (!Object.hasOwn(REQUIRED, type)) return undefined;
  for (const [path, kind] of Object.entries(REQUIRED[type as ControllerMessage['type']])) {
    const found = path.split('.').reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), line);
    if (!isKind(found, kind)) {
      throw new SluiceError('INPUT_INVALID', `message ${type}: expected ${path} to be a ${kind}, found ${show(found)}`);
    }
  }
  return line as unknown as ControllerMessage;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isKind(value: unknown, kind: Kind): boolean {
  if (kind === 'object') return isObject(value);
  if (kind === 'number') return typeof value === 'number' && Number.isFinite(value);
  return typeof value === 'string' && value !== '';
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
