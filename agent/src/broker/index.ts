/**
 * The broker: the one module that knows Envoy's hot restart wire protocol (source/server/hot_restart.proto).
 *
 *   const kept = new KeptSockets();
 *   await syncKept(kept, { baseId, envoy: { epoch, socketPath, pid }, exclude: [adminAddress] }); // what it listens on now
 *   const handover = await relayHandover({ baseId, parent, child, kept }); // then launch the child
 *   await handover.drainRequested;                                         // the child serves
 *   await handover.independent;                                            // the epochs never speak again
 *
 *   const relaunch = await playParent({ baseId, child, kept });            // no live parent: answers from the kept dups
 */

export { type AbsorbOptions, absorbReplies } from './ask.ts';
export { playParent, relayHandover } from './handover.ts';
export { type KeptSocket, KeptSockets } from './kept.ts';
export {
  clearInitializing,
  ensureSharedMemory,
  readInitializingFlag,
  sharedMemoryExists,
  sharedMemoryPath,
} from './shared-memory.ts';
export { type SyncOptions, type SyncResult, syncKept } from './sync.ts';
export type * from './types.ts';
export { relayUdp } from './udp.ts';
