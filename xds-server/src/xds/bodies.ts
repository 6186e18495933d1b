import { createHash } from 'node:crypto';
import { typeOfKind } from '../resources/types.ts';
import type { Mode, Outgoing } from './session.ts';
import type { Resource } from './snapshot.ts';
import { deltaBody, sotwBody } from './wire.ts';

export interface Body {
  readonly version: string;
  /** The response without its nonce. */
  readonly bytes: Buffer;
}

const MAX_BYTES = 64 * 1024 * 1024;

function ids(resources: readonly Resource[]): string {
  return resources
    .map((resource) => resource.id)
    .sort((a, b) => a - b)
    .join();
}

/** The version of a set: the same content has the same version in every process. */
function versionOf(resources: readonly Resource[], removed: readonly string[]): string {
  const hash = createHash('sha256');
  for (const line of resources.map(({ name, version }) => `${name}\0${version}`).sort()) hash.update(`${line}\n`);
  for (const name of removed) hash.update(`-${name}\n`);
  return hash.digest('hex').slice(0, 16);
}

/** Response bodies by what they hold, so that thousands of streams share one. Bounded; the longest unused goes first. */
export class Bodies {
  readonly #bodies = new Map<string, Body>();
  #bytes = 0;
  /** Bodies put together so far: tests look at it. */
  built = 0;

  get(mode: Mode, { kind, plan }: Outgoing): Body {
    const removed = [...plan.removed].sort();
    const key = [
      mode,
      kind,
      ids(plan.resources),
      plan.target === plan.resources ? '' : ids(plan.target),
      ...removed,
    ].join('|');
    const known = this.#bodies.get(key);
    if (known !== undefined) {
      this.#bodies.delete(key);
      this.#bodies.set(key, known);
      return known;
    }
    const { typeUrl } = typeOfKind(kind);
    const version = versionOf(plan.target, removed);
    const bytes =
      mode === 'sotw'
        ? sotwBody(
            typeUrl,
            version,
            plan.resources.map((resource) => resource.framed.sotw),
          )
        : deltaBody(
            typeUrl,
            version,
            plan.resources.map((resource) => resource.framed.delta),
            removed,
          );
    const body = { version, bytes };
    this.built += 1;
    this.#bodies.set(key, body);
    this.#bytes += bytes.length;
    for (const [oldest, { bytes: old }] of this.#bodies) {
      if (this.#bytes <= MAX_BYTES || oldest === key) break;
      this.#bodies.delete(oldest);
      this.#bytes -= old.length;
    }
    return body;
  }
}
