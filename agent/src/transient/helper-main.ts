import { createInterface } from 'node:readline';
import { SluiceError, toSluiceError } from '@sluice/contract';
import type { Launch } from '../epochs/launch.ts';
import { executable, identify, type ProcessId } from '../epochs/proc.ts';
import { jsonLog } from '../log.ts';
import { helpOneUpgrade } from './helper.ts';
import type { ToFront, ToHelper } from './messages.ts';

/** Entry point of the helper process; started by the front alone (front.ts), which tells it all by messages.ts. */
const front = process.ppid;
const stop = new AbortController();
for (const name of ['SIGTERM', 'SIGINT'] as const) {
  process.once(name, () => stop.abort(new SluiceError('PHASE_REFUSED', 'the helper was told to end')));
}

const lines = createInterface({ input: process.stdin });
const heard = lines[Symbol.asyncIterator]();
const log = jsonLog('info', (line) => process.stderr.write(line), { helper: process.pid });
let became = false;

function tell(message: ToFront): void {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

async function hear(): Promise<ToHelper | undefined> {
  const { value, done } = await heard.next();
  return done ? undefined : (JSON.parse(value) as ToHelper);
}

/** The pipe ends by execve, or by the death of the front: what runs under its pid now tells which. */
async function become(envoy: Launch): Promise<ProcessId> {
  if (became) throw new SluiceError('PHASE_REFUSED', 'the process beside this helper can become one epoch only');
  became = true;
  tell({ type: 'become', envoy });
  const word = await hear();
  const self = identify(front);
  if (word !== undefined || self === undefined || executable(front) === process.execPath) {
    const found = word?.type === 'failed' ? word.message : 'it ended';
    throw new SluiceError('EPOCH_DIED', `expected process ${front} to become ${envoy.binary}, found: ${found}`);
  }
  return self;
}

const begin = await hear();
if (begin?.type === 'begin') {
  try {
    await helpOneUpgrade({ config: { ...begin.config, log }, upgrade: begin.upgrade, become, signal: stop.signal });
  } catch (thrown) {
    const { code, message, hint } = toSluiceError(thrown);
    log('error', 'helper ends', { code, error: message });
    if (!became) tell({ type: 'failed', code, message, hint });
    process.exitCode = 1;
  }
}
lines.close();
process.stdin.destroy();
