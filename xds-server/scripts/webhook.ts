import { writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { webhookConfiguration } from '../src/inject/configuration.ts';

// Writes the webhook's manifest of src/inject/configuration.ts; a test compares them.
const file = new URL('../../deploy/kustomize/components/injection/webhook.yaml', import.meta.url);
const configuration = webhookConfiguration({
  name: 'sluice-injection',
  namespace: 'sluice-system',
  client: { service: 'sluice-webhook' },
});
writeFileSync(file, stringify(configuration, { lineWidth: 0, aliasDuplicateObjects: false }));
