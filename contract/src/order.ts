import type { DrainPolicy } from './policy.ts';

/**
 * The drain order: the configuration of the ECDS resource DRAIN_RESOURCE of an old epoch. Envoy ACKs it, the filter
 * applies its part and relays it to the agent, which does what only a file can (the pressure).
 */
export interface DrainOrder {
  /** Shape of this object; 1 today. */
  readonly v: 1;
  /** The upgrade that this drain belongs to. */
  readonly upgradeId: string;
  /** The epoch that is to drain. An order for another epoch is ignored. */
  readonly epoch: number;
  /** Grows with every change of an order to this epoch, from one upgrade to the next too; the larger one wins. */
  readonly version: number;
  /** `drain` begins or changes a drain; `stop` takes it back (no further connection is told to leave). */
  readonly action: 'drain' | 'stop';
  readonly policy: DrainPolicy;
  /** Only connections older than this are told to leave; 0 = all. Milliseconds. */
  readonly cutoffAgeMs: number;
  /** This proxy's share of a fleet's pacing: at most so many a second, whatever its policy says. */
  readonly pace?: { readonly perSecond: number };
  /** When the order was given, epoch milliseconds of the controller's clock. */
  readonly issuedAt: number;
}

/** Name of the ECDS resource (an HTTP filter) that carries the drain order. */
export const DRAIN_RESOURCE = 'sluice.drain';
