import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { CATALOGUE, SluiceError, toSluiceError } from './errors.ts';
import { errorsDoc } from './errors-doc.ts';

describe('the error catalogue', () => {
  it('is what docs/errors.md says', () => {
    const file = join(import.meta.dirname, '..', '..', 'docs', 'errors.md');
    expect(readFileSync(file, 'utf8'), 'run: node contract/scripts/docs.ts').toBe(errorsDoc());
  });

  it('has a summary, a hint and an exit code that a shell can tell apart from success and signals', () => {
    for (const [code, spec] of Object.entries(CATALOGUE)) {
      expect(code).toMatch(/^[A-Z0-9]+(_[A-Z0-9]+)*$/);
      expect(spec.summary).not.toBe('');
      expect(spec.hint).not.toBe('');
      expect(spec.exit).toBeGreaterThan(1);
      expect(spec.exit).toBeLessThan(126);
    }
  });

  it('keeps the cause and writes the code with its prefix', () => {
    const cause = new Error('inner');
    const error = new SluiceError('TIMEOUT', 'expected an answer, found none', { cause, hint: 'wait' });
    expect(error.cause).toBe(cause);
    expect(error.exit).toBe(9);
    expect(error.toJSON()).toEqual({ code: 'SLUICE_TIMEOUT', message: 'expected an answer, found none', hint: 'wait' });
    expect(toSluiceError(error)).toBe(error);
    expect(toSluiceError('text')).toMatchObject({ code: 'INTERNAL', message: 'text' });
  });
});
