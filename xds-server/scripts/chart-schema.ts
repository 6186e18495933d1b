import { readFileSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { injectionSchema } from '../src/inject/config.ts';
import { policySchema } from '../src/kube/schema.ts';

/** The parts of the chart's values.schema.json that the controller's own schemas are: a wrong value is refused by helm. */
export function chartDefinitions(): { readonly sidecar: object; readonly policy: object } {
  const options = { io: 'input', target: 'draft-7', unrepresentable: 'any' } as const;
  const { $schema: _, ...sidecar } = z.toJSONSchema(injectionSchema, options);
  // Strict, as the API server is with a DrainPolicy: what it does not know it would drop.
  const strict = JSON.parse(JSON.stringify(policySchema), (_key, value: unknown) =>
    typeof value === 'object' && value !== null && 'properties' in value
      ? { ...value, additionalProperties: false }
      : value,
  ) as object;
  return { sidecar, policy: strict };
}

export const CHART_SCHEMA = new URL('../../deploy/helm/sluice/values.schema.json', import.meta.url);

if (import.meta.main) {
  const schema = JSON.parse(readFileSync(CHART_SCHEMA, 'utf8')) as { definitions: object };
  const definitions = { ...schema.definitions, ...chartDefinitions() };
  writeFileSync(CHART_SCHEMA, `${JSON.stringify({ ...schema, definitions }, null, 2)}\n`);
}
