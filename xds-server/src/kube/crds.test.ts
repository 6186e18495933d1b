import { readFileSync } from 'node:fs';
import { DEFAULT_POLICY, parsePolicy } from '@sluice/contract';
import { expect, it } from 'vitest';
import { parse } from 'yaml';
import { BAD_POLICIES, GOOD_POLICIES } from '../testing/policy-examples.ts';
import { CRDS } from './crds.ts';
import { policySchema, type Schema } from './schema.ts';

it.each(Object.keys(CRDS))(
  'deploy/crds/%s is made from crds.ts: run node --conditions=sluice-source xds-server/scripts/crds.ts',
  (name) => {
    const file = new URL(`../../../deploy/crds/${name}`, import.meta.url);
    expect(parse(readFileSync(file, 'utf8'))).toEqual(JSON.parse(JSON.stringify(CRDS[name])));
  },
);

/** Which of the words of JSON Schema that ours use does not hold, by path. CEL rules are the API server's: test/k8s/crds.test.ts. */
function problems(schema: Schema, value: unknown, path = ''): string[] {
  const found: string[] = [];
  const bad = (word: string) => found.push(`${path}: ${word}`);
  const is = {
    object: typeof value === 'object' && value !== null && !Array.isArray(value),
    array: Array.isArray(value),
  };
  const {
    type,
    properties = {},
    required = [],
    items,
  } = schema as {
    type: string;
    properties?: Record<string, Schema>;
    required?: string[];
    items?: Schema;
  };
  if (type === 'object' && is.object) {
    const given = value as Record<string, unknown>;
    for (const name of required) if (given[name] === undefined) bad(`${name} is required`);
    for (const [name, one] of Object.entries(given)) {
      if (properties[name] === undefined) bad(`no field ${name}`);
      else found.push(...problems(properties[name], one, `${path}.${name}`));
    }
  } else if (type === 'array' && is.array) {
    const list = value as unknown[];
    if (list.length > Number(schema.maxItems) || list.length < Number(schema.minItems ?? 0)) bad('length');
    for (const one of list) found.push(...problems(items as Schema, one, `${path}[]`));
  } else if (type === 'integer' && Number.isInteger(value)) {
    if (Number(value) < Number(schema.minimum) || Number(value) > Number(schema.maximum)) bad('range');
  } else if (type === 'string' && typeof value === 'string') {
    const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = schema as {
      minLength?: number;
      maxLength?: number;
    };
    if (value.length < minLength || value.length > maxLength) bad('length');
    if (schema.enum !== undefined && !(schema.enum as string[]).includes(value)) bad('choice');
  } else if (!(type === 'boolean' && typeof value === 'boolean')) bad(`no ${type}`);
  return found;
}

it('a policy that parsePolicy takes fits the schema, and the whole default policy does', () => {
  for (const policy of [...GOOD_POLICIES, DEFAULT_POLICY, parsePolicy(GOOD_POLICIES[4])]) {
    expect(() => parsePolicy(policy)).not.toThrow();
    expect(problems(policySchema, policy)).toEqual([]);
  }
});

it('a policy that parsePolicy refuses does not fit the schema, but for what CEL rules say', () => {
  for (const [policy, message] of BAD_POLICIES) {
    expect(() => parsePolicy(policy), JSON.stringify(policy)).toThrow();
    const byCel = /unique|CIDR/.test(message.source);
    expect(problems(policySchema, policy).length > 0, JSON.stringify(policy)).toBe(!byCel);
  }
});

it('the schema has each field of the policy and no other', () => {
  const fields = (schema: Schema) => Object.keys(schema.properties as object).sort();
  expect(fields(policySchema)).toEqual(Object.keys(DEFAULT_POLICY).sort());
});
