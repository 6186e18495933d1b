import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exitCodeRows } from '../src/lib/failure.ts';

/** Writes the table of exit codes of docs/cli.md anew; the rest of the page stays. */
const file = join(import.meta.dirname, '..', '..', 'docs', 'cli.md');
const rows = exitCodeRows().map(({ exit, codes }) => `| ${exit} | ${codes.map((c) => `\`${c}\``).join(', ')} |\n`);
const table = /(\| exit \| .*\n\|---\|---\|\n)(?:\| \d+ \| .*\n)+/;
writeFileSync(
  file,
  readFileSync(file, 'utf8').replace(table, (_, head: string) => head + rows.join('')),
);
