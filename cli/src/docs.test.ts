import { readFileSync } from 'node:fs';
import {
  DEFAULT_ANALYSIS,
  DEFAULT_POLICY,
  DEFAULT_STRATEGY,
  parseAnalysis,
  parsePolicy,
  parseSelector,
  parseStrategy,
} from '@sluice/contract';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { encodeRecord, recordOf } from './lib/record.ts';

const page = (name: string) => readFileSync(new URL(`../../docs/${name}.md`, import.meta.url), 'utf8');
const examples = [...page('policies').matchAll(/^```yaml\n([\s\S]*?)^```$/gm)].map(([, text = '']) => text);

test('docs/policies.md begins with the default policy', () => {
  expect(parse(examples[0] ?? '')).toEqual(DEFAULT_POLICY);
});

test.each(examples)('an example of docs/policies.md is a policy: %s', (text) => {
  const given = parse(text) as object;
  expect(Object.keys(given).length).toBeGreaterThan(0);
  expect(parsePolicy(given)).toMatchObject(given);
});

test('docs/policies.md names every field', () => {
  const text = page('policies');
  for (const [name, value] of Object.entries(DEFAULT_POLICY)) {
    const fields =
      typeof value === 'object' && !Array.isArray(value) ? Object.keys(value).map((f) => `${name}.${f}`) : [name];
    for (const field of fields) expect(text).toContain(`| \`${field}\` |`);
  }
  const rule = { name: 'all', match: {}, wrong: 1 };
  // The parser names the fields of a rule where it finds none of them.
  const message = (() => {
    try {
      parsePolicy({ rules: [rule] });
    } catch (thrown) {
      return (thrown as Error).message;
    }
    throw new Error('a field that does not exist was taken');
  })();
  for (const field of message.split('there are ')[1]?.split(', ') ?? []) expect(text).toContain(`\`${field}\``);
});

test('docs/record.md names the columns of the CSV', () => {
  const empty = recordOf({ id: 'u', proxy: 'p' }, { upgradeId: 'u', items: [], counts: [], dropped: 0 });
  const columns = encodeRecord(empty, 'csv').trim().split(',');
  for (const column of columns) expect(page('record')).toContain(`\`${column}\``);
});

test('the example of docs/rollouts.md is a rollout, and names every field', () => {
  const [, text = ''] = /^```yaml\n([\s\S]*?)^```$/m.exec(page('rollouts')) ?? [];
  const { selector, strategy, analysis } = parse(text) as Record<string, object>;
  expect(parseSelector(selector)).toEqual(selector);
  expect(parseStrategy(strategy)).toEqual(strategy);
  expect(parseAnalysis(analysis)).toEqual(DEFAULT_ANALYSIS);
  expect(Object.keys(strategy ?? {})).toEqual(Object.keys(DEFAULT_STRATEGY));
});
