import { describe, expect, it } from 'vitest';
import { parseOptions, versionsOf } from './options.ts';

describe('the versions of the flips', () => {
  it('go there and back by default', () => {
    expect(versionsOf(2, undefined, undefined)).toEqual(['1.38.3', '1.40.0', '1.38.3']);
  });
  it('go through four versions when there are more', () => {
    expect(new Set(versionsOf(6, undefined, undefined))).toEqual(new Set(['1.36.4', '1.38.3', '1.39.3', '1.40.0']));
  });
  it('alternate between those that were given', () => {
    expect(versionsOf(3, '1.36.4', '1.40.0')).toEqual(['1.36.4', '1.40.0', '1.36.4', '1.40.0']);
  });
});

it('refuses a wrong option by name', () => {
  expect(() => parseOptions(['--flips', 'many'])).toThrow('--flips: expected 1 to 100, found many');
  expect(() => parseOptions(['--fast'])).toThrow("'--fast'");
});
