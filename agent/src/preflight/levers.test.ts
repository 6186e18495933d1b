import { expect, it } from 'vitest';
import { checkLevers } from './levers.ts';

it.each([
  ['1.36.4', '1.40.0', /^known of Envoy 1\.36\.4$/],
  ['1.40.9', undefined, /^known of Envoy 1\.40\.9$/],
  ['1.41.0', '1.40.0', /^warning: nobody has looked at Envoy 1\.41\.0 .*in this drain nobody is told/],
  ['1.41.0', '1.41.0', /^warning: [^;]*in this drain nobody is told[^;]*; [^;]*$/],
  ['1.40.0', '1.41.0', /^warning: nobody has looked at Envoy 1\.41\.0 .*when it drains itself one day/],
  ['1.35.2', '1.41.0', /Envoy 1\.35\.2 .*; warning: .*Envoy 1\.41\.0/],
])('an upgrade from %s to %s is never refused, and what is not known is said', (serving, to, found) => {
  const check = checkLevers(serving, to);
  expect(check).toMatchObject({ name: 'levers', ok: true });
  expect(check.found).toMatch(found);
});
