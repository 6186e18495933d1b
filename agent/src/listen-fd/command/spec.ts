import { SluiceError } from '@sluice/contract';
import { normalAddress } from '../../native/listen-socket.ts';

/**
 * How a proxy that is not Envoy is started, checked and stopped. It inherits its listen sockets: the descriptor of `NAME`
 * is in the environment as FD_NAME. In the argument lists `${BINARY}`, `${CONFIG}` and `${DIR}` (the epoch's own folder)
 * are replaced.
 */
export interface CommandSpec {
  readonly args: readonly string[];
  /** Arguments with which the binary checks its configuration and ends with 0; none = it is not asked. */
  readonly check?: readonly string[];
  /** Arguments with which it says its version; the first `1.2.3` of the answer is taken. */
  readonly version?: readonly string[];
  /** Listen sockets by name: `{HTTP: '0.0.0.0:80'}`. */
  readonly listen: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** How it says that it serves: READY=1 to NOTIFY_SOCKET, as sd_notify(3). */
  readonly ready?: 'notify';
  /** Makes it stop accepting and finish what it has. Default: SIGUSR1. */
  readonly stopSignal?: NodeJS.Signals;
  /** Ends it now. Default: SIGTERM. */
  readonly endSignal?: NodeJS.Signals;
  /** Unix socket of sluice-fd/1: the sockets are taken over from who offers them there, and offered to a successor. */
  readonly socket?: string;
}

export interface ResolvedSpec extends Required<Omit<CommandSpec, 'check' | 'version' | 'socket'>> {
  readonly check?: readonly string[];
  readonly version?: readonly string[];
  readonly socket?: string;
}

/** Throws CONFIG_INVALID with the field's path. */
export function resolveSpec(given: unknown): ResolvedSpec {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw odd('command', 'an object', given);
  const fields = given as Record<string, unknown>;
  for (const name of Object.keys(fields)) {
    if (!(name in KNOWN)) throw odd(`command.${name}`, `one of ${Object.keys(KNOWN).join(', ')}`, 'another field');
  }
  const { listen, env, ready, stopSignal, endSignal, socket } = fields;
  const args = strings('args', fields.args);
  if (args === undefined) throw odd('command.args', 'a list of texts', fields.args);
  const [check, version] = [strings('check', fields.check), strings('version', fields.version)];
  if (ready !== undefined && ready !== 'notify') throw odd('command.ready', '"notify"', ready);
  if (socket !== undefined && typeof socket !== 'string') throw odd('command.socket', 'a path', socket);
  return {
    args,
    listen: listenOf(listen),
    env: texts('env', env ?? {}),
    ready: 'notify',
    stopSignal: signal('stopSignal', stopSignal, 'SIGUSR1'),
    endSignal: signal('endSignal', endSignal, 'SIGTERM'),
    ...(check && { check }),
    ...(version && { version }),
    ...(socket !== undefined && { socket }),
  };
}

const KNOWN = {
  args: 1,
  check: 1,
  version: 1,
  listen: 1,
  env: 1,
  ready: 1,
  stopSignal: 1,
  endSignal: 1,
  socket: 1,
} satisfies Record<keyof CommandSpec, 1>;

function listenOf(value: unknown): Record<string, string> {
  const listen = texts('listen', value);
  const names = Object.keys(listen);
  if (names.length === 0) throw odd('command.listen', 'a listen socket at least', value);
  const odd_ = names.find((name) => !/^[A-Z][A-Z0-9_]*$/.test(name));
  if (odd_ !== undefined) throw odd('command.listen', 'names of capital letters, digits and _', odd_);
  return Object.fromEntries(names.map((name) => [name, normalAddress(listen[name] ?? '')]));
}

function strings(name: string, value: unknown): string[] | undefined {
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value;
  throw odd(`command.${name}`, 'a list of texts', value);
}

function texts(name: string, value: unknown): Record<string, string> {
  const is = typeof value === 'object' && value !== null && !Array.isArray(value);
  if (is && Object.values(value).every((one) => typeof one === 'string')) return value as Record<string, string>;
  throw odd(`command.${name}`, 'texts by name', value);
}

function signal(name: string, value: unknown, preset: NodeJS.Signals): NodeJS.Signals {
  if (value === undefined) return preset;
  if (typeof value === 'string' && /^SIG[A-Z0-9]{2,10}$/.test(value)) return value as NodeJS.Signals;
  throw odd(`command.${name}`, 'a signal such as SIGUSR1', value);
}

function odd(path: string, expected: string, found: unknown): SluiceError {
  return new SluiceError(
    'CONFIG_INVALID',
    `${path}: expected ${expected}, found ${JSON.stringify(found) ?? 'nothing'}`,
  );
}

export interface Words {
  readonly BINARY: string;
  readonly CONFIG: string;
  readonly DIR: string;
}

export function fill(args: readonly string[], words: Words): string[] {
  return args.map((arg) => arg.replaceAll(/\$\{(BINARY|CONFIG|DIR)\}/g, (_, name: keyof Words) => words[name]));
}
