import { DRAIN_RESOURCE } from '@sluice/contract';

/** Content of the file that feeds a slot by `path_config_source`: its resource. Envoy wants exactly one in a file. */
export function orderFile(typedConfig: unknown, name: string = DRAIN_RESOURCE): string {
  const resource = {
    '@type': 'type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig',
    name,
    typed_config: typedConfig,
  };
  return JSON.stringify({ resources: [resource] });
}
