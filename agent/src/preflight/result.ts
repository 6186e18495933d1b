import { CATALOGUE, type CheckResult, type ErrorCode } from '@sluice/contract';

export function passed(name: string, found: string): CheckResult {
  return { name, ok: true, found };
}

export function failed(name: string, code: ErrorCode, found: string, hint: string = CATALOGUE[code].hint): CheckResult {
  return { name, ok: false, found, code: `SLUICE_${code}`, hint };
}
