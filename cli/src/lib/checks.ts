import type { CheckResult } from '@sluice/contract';
import { exitOf } from './failure.ts';
import type { Column } from './output.ts';

/** 0, or the exit code of the first check that failed. */
export function exitOfChecks({ ok, checks }: { ok?: boolean; checks?: readonly CheckResult[] }): number {
  return ok === false ? exitOf(checks?.find((c) => !c.ok)?.code ?? 'PREFLIGHT_BINARY') : 0;
}

export function checkColumns(): Column<CheckResult>[] {
  return [
    { title: 'CHECK', of: (c) => c.name },
    { title: 'RESULT', of: (c) => (c.ok ? 'ok' : 'FAILED') },
    { title: 'FOUND', of: (c) => c.found },
    { title: 'WHAT TO DO', of: (c) => (c.ok ? '' : (c.hint ?? '')) },
    { title: 'CODE', of: (c) => c.code ?? '', wide: true },
  ];
}
