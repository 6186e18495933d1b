import type { AgentMessage } from '@sluice/contract';
import type { Store } from '../store/store.ts';
import type { Driver } from './driver.ts';

/** Hands what concerns upgrades among an agent's messages to the upgrade that it is about. */
export async function hear(
  { driver, store }: { readonly driver: Driver; readonly store: Store },
  proxy: string,
  slot: string,
  message: AgentMessage,
): Promise<void> {
  // Told again after a hello, it may come before what it is about is taken up.
  if (driver.takesUp && 'upgradeId' in message) await driver.settled;
  switch (message.type) {
    case 'epochs':
      return driver.epochsChanged(proxy, slot, false);
    case 'serving':
      if (driver.owner(proxy, message.upgradeId) === undefined) await driver.adoptions.handedOver(proxy, slot, message);
      else await driver.event(message.upgradeId, message);
      return driver.giveTurns(proxy);
    case 'preflight':
    case 'failed': {
      const id = driver.owner(proxy, message.upgradeId);
      if (id !== undefined) await driver.event(id, message);
      return driver.giveTurns(proxy);
    }
    case 'orderApplied': {
      const id = driver.owner(proxy, message.upgradeId);
      if (id !== undefined) await driver.event(id, message);
      return;
    }
    case 'verdict':
    case 'reset': {
      const id = await ownerInTheEnd(driver, proxy, message);
      if (id === undefined) return;
      await driver.event(id, message.type === 'reset' ? { ...message, type: 'resetDone' } : message);
      return;
    }
    case 'ended': {
      const id = (await ownerInTheEnd(driver, proxy, message)) ?? (await past(driver, proxy, message.upgradeId));
      if (id !== undefined) await store.appendEnded(id, message.items, message.dropped);
      return;
    }
    default:
      return;
  }
}

/**
 * Whose word it is. It may come with the first words of an agent whose drain is only being taken over, and is said once: lost,
 * the old epoch would wait for ever.
 */
async function ownerInTheEnd(
  driver: Driver,
  proxy: string,
  { upgradeId, epoch }: { readonly upgradeId: string; readonly epoch: number },
): Promise<string | undefined> {
  if (driver.owner(proxy, upgradeId, epoch) === undefined) await driver.adoptions.settled(proxy, epoch);
  return driver.owner(proxy, upgradeId, epoch);
}

/** The last ends of an upgrade may come when it is over already: its agent was away meanwhile. */
async function past(driver: Driver, proxy: string, upgradeId: string): Promise<string | undefined> {
  const state = upgradeId === '' ? undefined : await driver.find(upgradeId);
  return state?.proxy === proxy ? state.id : undefined;
}
