import { startKeeper } from '@sluice/agent/keeper';
import { jsonLog } from '@sluice/agent/log';

// A keeper as a process of its own, for tests that kill it. Its configuration is one JSON argument.
const config = JSON.parse(process.argv[2] ?? '{}');
const log = jsonLog('debug', (line) => process.stdout.write(line));
const keeper = await startKeeper({ ...config, log });
log('info', 'keeper ready', { epochs: keeper.epochs() });
await keeper.done;
