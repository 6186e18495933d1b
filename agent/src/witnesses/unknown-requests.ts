/** One VM's word on requests, as of its last report. */
export interface VmTally {
  /** In flight then, of those that the filter knows. */
  readonly inFlight: number;
  /** Ended since the VM began; only grows. */
  readonly ended: number;
  /** When it said so, epoch milliseconds. */
  readonly saidAt: number;
}

export interface Tally {
  readonly vms: ReadonlyMap<string, VmTally>;
  /** Set when every VM has applied the drain's filter: from then on no request begins unseen. Version of that order. */
  readonly sinceOrder?: number;
}

interface Reading {
  readonly before: Tally;
  readonly active: number;
  readonly readAt: number;
}

/** A reading that some VM did not confirm for so long is given up. */
const GIVEN_UP_MS = 3_000;
/** Without the drain part in every VM new requests begin unseen: the bound then says little of now. VMs speak each second. */
const FRESH_MS = 2_000;

/**
 * How many requests in flight the filter can not know of, because they began before its drain part came: Envoy's own
 * count of active requests less those that the filter knows. The two are read at different moments, and a request that
 * ended in between would hide an unknown one; so this is a bound that holds however they fall:
 *
 *   report R1 ... admin reads `active` ... report R2      in each VM
 *
 * Of the requests known at R1 all but those that ended until R2 were in flight at the reading, so at most
 * active - sum(inFlight at R1 - ended between R1 and R2) others were. Once the drain part is in every VM, no unknown
 * request can begin: the smallest bound ever found holds from then on.
 */
export class UnknownRequests {
  #reading: Reading | undefined;
  #bound: { readonly value: number; readonly at: number; readonly sinceOrder: number | undefined } | undefined;

  /** `before` taken before admin was asked, `readAt` when its answer was there. */
  read(before: Tally, active: number, readAt: number): void {
    // The one that waits for its confirmation goes first: a look every 50 ms would never let one through.
    if (this.#reading !== undefined && readAt - this.#reading.readAt < GIVEN_UP_MS) return;
    this.#reading = { before, active, readAt };
  }

  /** Admin was asked and did not answer: what it said before does not hold any more while requests can begin unseen. */
  unheard(): void {
    this.#reading = undefined;
    if (this.#bound?.sinceOrder === undefined) this.#bound = undefined;
  }

  /** The bound as of now; undefined while there is none. */
  bound(tally: Tally, now: number): number | undefined {
    const reading = this.#reading;
    if (reading !== undefined && confirmed(reading, tally)) {
      this.#reading = undefined;
      this.#take(settle(reading, tally), reading, tally);
    }
    const bound = this.#bound;
    if (bound === undefined) return undefined;
    if (bound.sinceOrder !== undefined && bound.sinceOrder === tally.sinceOrder) return bound.value;
    return now - bound.at < FRESH_MS ? bound.value : undefined;
  }

  #take(value: number, reading: Reading, tally: Tally): void {
    const { sinceOrder } = reading.before;
    const lasting = sinceOrder !== undefined && sinceOrder === tally.sinceOrder;
    const held = this.#bound;
    const smallest = lasting && held?.sinceOrder === sinceOrder ? Math.min(held.value, value) : value;
    this.#bound = { value: smallest, at: reading.readAt, sinceOrder: lasting ? sinceOrder : undefined };
  }
}

/** Every VM that knew of a request has reported since, or is gone. */
function confirmed({ before, readAt }: Reading, tally: Tally): boolean {
  for (const [id, vm] of before.vms) {
    const later = tally.vms.get(id);
    if (vm.inFlight > 0 && later !== undefined && later.saidAt <= readAt) return false;
  }
  return true;
}

function settle({ before, active }: Reading, tally: Tally): number {
  let known = 0;
  for (const [id, vm] of before.vms) {
    const later = tally.vms.get(id);
    if (later !== undefined) known += Math.max(0, vm.inFlight - (later.ended - vm.ended));
  }
  return Math.max(0, active - known);
}
