import { CATALOGUE, type ErrorCode, type SluiceError } from '@sluice/contract';
import { clean } from './table.ts';

/** Exit codes that no error of the catalogue stands for. */
export const EXIT = { ok: 0, usage: 2, interrupted: 130 } as const;

/** One line: code, what was expected and found, what to do. */
export function renderFailure(error: SluiceError): string {
  return `error: SLUICE_${error.code}: ${clean(error.message)} (${clean(error.hint)})\n`;
}

/** A code as the API writes it, back as one of the catalogue. */
export function knownCode(code: unknown): ErrorCode | undefined {
  const bare = typeof code === 'string' ? code.replace(/^SLUICE_/, '') : '';
  return Object.hasOwn(CATALOGUE, bare) ? (bare as ErrorCode) : undefined;
}

/** The exit code for a code of the catalogue that came from elsewhere; 70 for one that this build does not know. */
export function exitOf(code: unknown): number {
  return CATALOGUE[knownCode(code) ?? 'INTERNAL'].exit;
}

export interface ExitCodeRow {
  readonly exit: number;
  readonly codes: readonly ErrorCode[];
}

/** Every exit code of the catalogue with the errors behind it, for `docs/cli.md`. */
export function exitCodeRows(): ExitCodeRow[] {
  const rows = new Map<number, ErrorCode[]>();
  for (const code of Object.keys(CATALOGUE) as ErrorCode[]) {
    const { exit } = CATALOGUE[code];
    rows.set(exit, [...(rows.get(exit) ?? []), code]);
  }
  return [...rows].sort(([a], [b]) => a - b).map(([exit, codes]) => ({ exit, codes }));
}
