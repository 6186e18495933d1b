import type { ProxyView } from '@sluice/contract';
import type { XdsServer } from '../xds/index.ts';

/** Kinds whose answers the API shows. */
const SHOWN_KINDS = ['cds', 'eds', 'lds', 'rds', 'sds', 'ecds', 'rtds'] as const;

/** What each epoch of a proxy took or refused last. */
export function xdsViewOf(xds: Pick<XdsServer, 'nodes' | 'acked'>, proxy: string): ProxyView['xds'] {
  const nodes = xds.nodes().filter((node) => node.id === proxy);
  return nodes
    .sort((a, b) => a.epoch - b.epoch)
    .map(({ epoch }) => ({
      epoch,
      types: SHOWN_KINDS.flatMap((type) => {
        const state = xds.acked(proxy, epoch, type);
        if (state === undefined) return [];
        const { version, nacked } = state;
        return [
          { type, version, acked: nacked === undefined, ...(nacked === undefined ? {} : { nack: nacked.message }) },
        ];
      }),
    }));
}
