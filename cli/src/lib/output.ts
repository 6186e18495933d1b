import { Option } from 'commander';
import { type Io, print } from './io.ts';
import { table } from './table.ts';

export const FORMATS = ['table', 'wide', 'json', 'yaml', 'name'] as const;
export type Format = (typeof FORMATS)[number];

export function outputOption(): Option {
  return new Option('-o, --output <format>', 'how to print').choices(FORMATS).default('table');
}

export interface Column<T> {
  readonly title: string;
  readonly of: (item: T) => string;
  /** Only with `-o wide`. */
  readonly wide?: boolean;
}

/** Prints items in the form asked for. `whole` is what JSON and YAML show; `name` makes the line of `-o name`. */
export async function printList<T>(
  io: Io,
  format: Format,
  items: readonly T[],
  options: {
    readonly columns: readonly Column<T>[];
    readonly name: (item: T) => string;
    readonly whole: unknown;
    readonly empty: string;
  },
): Promise<void> {
  if (await printData(io, format, options.whole)) return;
  if (format === 'name') {
    for (const item of items) print(io, options.name(item));
    return;
  }
  if (items.length === 0) {
    io.err.write(`${options.empty}\n`);
    return;
  }
  const columns = options.columns.filter((c) => !c.wide || format === 'wide');
  print(
    io,
    table(
      columns.map((c) => c.title),
      items.map((item) => columns.map((c) => c.of(item))),
    ),
  );
}

/** Prints as JSON or YAML if that is the format; false if it is for people. */
export async function printData(io: Io, format: Format, value: unknown): Promise<boolean> {
  if (format === 'json') print(io, JSON.stringify(value, null, 2));
  else if (format === 'yaml') print(io, (await import('yaml')).stringify(value));
  else return false;
  return true;
}
