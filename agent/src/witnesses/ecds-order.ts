import { DRAIN_RESOURCE, type DrainOrder, parseDrainOrder } from '@sluice/contract';
import type { AdminConnection } from './admin.ts';

interface Dump {
  readonly configs?: readonly {
    readonly ecds_filter?: {
      readonly name?: string;
      readonly typed_config?: { readonly metadata?: readonly { readonly value?: { readonly order?: unknown } }[] };
    };
  }[];
}

/**
 * The drain order that an Envoy without the filter was given by ECDS: it lies as metadata in its configuration, and the
 * admin shows it. Undefined when there is none yet. Throws when the admin can not be heard.
 */
export async function readEcdsOrder(admin: AdminConnection): Promise<DrainOrder | undefined> {
  const dump = JSON.parse(await admin.get('/config_dump?resource=ecds_filters')) as Dump;
  for (const { ecds_filter: filter } of dump.configs ?? []) {
    if (filter?.name !== DRAIN_RESOURCE) continue;
    const order = filter.typed_config?.metadata?.[0]?.value?.order;
    if (typeof order === 'string') return parseDrainOrder(order);
  }
  return undefined;
}
