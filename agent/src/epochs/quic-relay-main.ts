import { toSluiceError } from '@sluice/contract';
import { relayUdp } from '../broker/index.ts';
import { asOthers } from '../native/sched.ts';
import { watchAlive } from './alive.ts';
import type { RelayConfig, RelayWord } from './quic-relay.ts';

/** Entry point of the process that passes QUIC packets on (quic-relay.ts). It ends with the old Envoy, not with the agent. */
const { baseId, parent, child, old, alive } = JSON.parse(process.argv[2] ?? '{}') as RelayConfig;
const say = (word: RelayWord) => process.stdout.write(`${JSON.stringify(word)}\n`);
process.stdout.on('error', () => {}); // the agent that started it is gone
asOthers(process.pid); // every packet of the new epoch waits for it

try {
  const onError = (error: unknown) => say({ event: 'trouble', error: String(error) });
  const relay = relayUdp({ baseId, parent, child, onError });
  say({ event: 'relaying' });
  await watchAlive(alive, old).gone;
  relay.close();
  say({ event: 'ended', packets: relay.passed });
} catch (thrown) {
  const { code, message, hint } = toSluiceError(thrown);
  say({ event: 'failed', code, message, hint });
  process.exitCode = 1;
}
