import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorsDoc } from '../src/errors-doc.ts';

writeFileSync(join(import.meta.dirname, '..', '..', 'docs', 'errors.md'), errorsDoc());
