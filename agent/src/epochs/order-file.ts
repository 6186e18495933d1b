import { DRAIN_RESOURCE } from '@sluice/contract';

/** Content of an epoch's order file: the drain slot's resource, for `path_config_source`. Envoy wants exactly one. */
export function orderFile(typedConfig: unknown): string {
  const resource = {
    '@type': 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig',
    name: DRAIN_RESOURCE,
    typed_config: typedConfig,
  };
  return JSON.stringify({ resources: [resource] });
}
