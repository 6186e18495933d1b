import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorsDoc } from '../src/errors-doc.ts';
import { leversDoc } from '../src/levers-doc.ts';
import { metricsDoc } from '../src/metrics-doc.ts';

const docs = join(import.meta.dirname, '..', '..', 'docs');
writeFileSync(join(docs, 'errors.md'), errorsDoc());
writeFileSync(join(docs, 'levers.md'), leversDoc());
writeFileSync(join(docs, 'metrics.md'), metricsDoc());
