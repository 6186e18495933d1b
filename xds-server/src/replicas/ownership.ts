import type { Membership, Replica } from './membership.ts';
import { ownerOf } from './rendezvous.ts';

/** Whose each proxy is, as this replica sees it now. A controller that is alone has them all. */
export class Ownership {
  readonly #membership: Membership | undefined;

  constructor(membership: Membership | undefined) {
    this.#membership = membership;
  }

  /** Name of this replica; undefined: it is alone. */
  get self(): string | undefined {
    return this.#membership?.self;
  }

  owns(proxy: string): boolean {
    return this.elsewhere(proxy) === undefined;
  }

  /** The other replica that a proxy belongs to; undefined: this one. Nobody lives to be told of: it stays here. */
  elsewhere(proxy: string): Replica | undefined {
    if (this.#membership === undefined) return undefined;
    const members = this.#membership.members();
    const owner = ownerOf(
      proxy,
      members.map(({ id }) => id),
    );
    return owner === this.#membership.self ? undefined : members.find(({ id }) => id === owner);
  }

  /** The other replica that leads; undefined: this one does, or it is not known who. */
  leader(): Replica | undefined {
    const leader = this.#membership?.leader();
    return leader?.id === this.#membership?.self ? undefined : leader;
  }

  isLive(id: string): boolean {
    return this.#membership?.members().some((one) => one.id === id) ?? false;
  }
}
