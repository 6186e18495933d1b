import { syncKept } from '../broker/index.ts';
import type { Epoch } from '../epochs/epoch.ts';
import { httpListenAddresses } from '../witnesses/listener-kinds.ts';
import type { KeeperContext } from './context.ts';

/**
 * Makes the kept set what this epoch listens on now, and notes the addresses for the kernel witness. A set that can not be
 * had (no permission, an Envoy that does not answer) is a warning: upgrades work, a crash would refuse connections.
 */
export async function keepListeners(context: Pick<KeeperContext, 'kept' | 'log'>, epoch: Epoch): Promise<void> {
  epoch.captureListenAddresses();
  if (!epoch.meta.wasm) await noteHttpAddresses(context, epoch);
  const { adminAddress, baseId } = epoch.meta;
  const exclude = [adminAddress.startsWith('/') ? `unix://${adminAddress}` : `tcp://${adminAddress}`];
  try {
    const result = await syncKept(context.kept, { baseId, envoy: epoch.party, exclude });
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
