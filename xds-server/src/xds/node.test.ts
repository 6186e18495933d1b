import { NODE_METADATA } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { toNode } from './node.ts';

const metadata = (values: Record<string, string>) => ({
  fields: Object.fromEntries(Object.entries(values).map(([key, value]) => [key, { stringValue: value }])),
});

describe('toNode', () => {
  it('knows a proxy by the name that its agent gave, whatever node.id the user has set', () => {
    const node = toNode({ id: 'sidecar~10.0.0.1', metadata: metadata({ [NODE_METADATA.proxy]: 'edge-1' }) });
    expect(node?.id).toBe('edge-1');
  });

  it('knows one without an agent by its node.id', () => {
    expect(toNode({ id: 'plain' })).toMatchObject({ id: 'plain', epoch: 0, slot: '' });
    expect(toNode({ id: '' })).toBeUndefined();
  });
});
