import { type KeptSocket, type KeptSockets, syncKept } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { close } from '../native/fds.ts';
import { silence, unsteer } from '../native/reuseport.ts';
import { httpListenAddresses } from '../witnesses/listener-kinds.ts';
import type { KeeperContext } from './context.ts';

/**
 * Makes the kept set what this epoch listens on now, and notes the addresses for the kernel witness. A set that can not be
 * had (no permission, an Envoy that does not answer) is a warning: upgrades work, a crash would refuse connections.
 */
export async function keepListeners(context: Pick<KeeperContext, 'kept' | 'log'>, epoch: Epoch): Promise<void> {
  epoch.captureListenAddresses();
  if (!epoch.meta.wasm) await noteHttpAddresses(context, epoch);
  const { adminAddress, baseId, hotRestart } = epoch.meta;
  const exclude = [adminAddress.startsWith('/') ? `unix://${adminAddress}` : `tcp://${adminAddress}`];
  try {
    // Without hot restart there is nobody to ask.
    const method = hotRestart === false ? 'pidfd' : 'auto';
    const result = await syncKept(context.kept, { baseId, envoy: epoch.party, exclude, method });
    const level = result.added + result.removed > 0 ? 'info' : 'debug';
    context.log(level, 'listen sockets kept', { epoch: epoch.number, ...result });
  } catch (error) {
    context.log('warn', 'listen sockets not kept', { epoch: epoch.number, error: String(error) });
  }
}

/** Without the filter only the listener tells HTTP from TCP; afterwards, when it drains, nobody does. */
async function noteHttpAddresses(context: Pick<KeeperContext, 'log'>, epoch: Epoch): Promise<void> {
  try {
    epoch.update({ httpAddresses: await httpListenAddresses(epoch.admin) });
  } catch (error) {
    context.log('warn', 'kinds of listeners not known', { epoch: epoch.number, error: String(error) });
  }
}

/** An agent that died before the new epoch of a handover had a process left a program, which nobody else would undo. */
export function unsteerKept({ kept, log }: Pick<KeeperContext, 'kept' | 'log'>): void {
  const shared = kept.list().filter((socket) => socket.address.startsWith('tcp://') && !socket.shared);
  try {
    each(kept, shared, unsteer);
  } catch (error) {
    log('warn', 'steering of an earlier agent not undone', { error: String(error) });
  }
}

/**
 * For a crash without hot restart, where no Envoy can be given the kept sockets: a connection that they take is reset when
 * they close, unless the kernel moves it to the next Envoy's. Silent ones take none, and refuse none: at 1,000 new
 * connections a second and 260 ms without an Envoy, 260 connected a second late, in place of 240 refused or 260 reset
 * (docs/measured.md).
 */
export function silenceKept(kept: KeptSockets): void {
  each(kept, kept.list(), silence);
}

function each(kept: KeptSockets, sockets: readonly KeptSocket[], use: (fd: number) => void): void {
  for (const socket of sockets) {
    const fd = kept.take(socket);
    if (fd === undefined) continue;
    try {
      use(fd);
    } finally {
      close(fd);
    }
  }
}
