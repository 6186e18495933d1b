import type { CutConnection } from '@sluice/contract';

/** What an end came to. */
export interface EndReport {
  /** `held`: an old container, whose peer serves; `drained`: nobody serves after it; `serving`: nothing was done yet. */
  readonly end: 'held' | 'drained' | 'serving';
  /** Who serves instead. */
  readonly peer?: string;
  readonly cut: readonly (CutConnection & { readonly epoch: number })[];
  /** Set when something was cut. */
  readonly why?: string;
  readonly byGrace: boolean;
}

/** For a person: `10.0.0.7:40112 (http1, request-in-flight, rule orders)`, at most ten of them. */
export function nameCut(cut: readonly CutConnection[]): string {
  const names = cut.slice(0, 10).map(({ peer, id, protocol, reason, rule }) => {
    const facts = [protocol, reason, rule && `rule ${rule}`].filter((one) => one !== undefined && one !== '');
    return `${peer || id} (${facts.join(', ')})`;
  });
  const more = cut.length > names.length ? ` and ${cut.length - names.length} more` : '';
  return `${names.join(', ')}${more}`;
}
