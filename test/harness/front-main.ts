import { jsonLog, type KeeperConfig } from '@sluice/agent';
import { becomeEpoch } from '@sluice/agent/transient/index';

/** A transient agent with the configuration given as JSON; it becomes Envoy. Ends with 7 when that fails. */
const log = jsonLog('info', (line) => process.stderr.write(line), { front: process.pid });
await becomeEpoch({ ...(JSON.parse(process.argv[2] ?? '{}') as KeeperConfig), log }).catch((error) => {
  log('error', 'front failed', { code: error.code, error: error.message });
  process.exitCode = 7;
});
