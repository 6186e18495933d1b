/** tsc emits nothing for src/generated (JavaScript with its own declarations): it goes into dist as it is. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '..');
cpSync(join(root, 'src/generated'), join(root, 'dist/generated'), {
  recursive: true,
  filter: (path) => !path.endsWith('stamp'),
});
