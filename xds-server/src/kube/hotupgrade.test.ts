import type { V1Pod } from '@kubernetes/client-node';
import { DEFAULT_ANALYSIS, DEFAULT_POLICY, DEFAULT_STRATEGY, type LabelSelector } from '@sluice/contract';
import { describe, expect, it } from 'vitest';
import { newRollout } from '../rollout/state.ts';
import { type Condition, nextConditions } from './conditions.ts';
import { type DrainPolicyObject, type HotUpgrade, type HotUpgradeSpec, policyOf, rolloutSpecOf } from './hotupgrade.ts';
import { claimsOf, ownerOf, sidecarSetOwner } from './hotupgrade-claims.ts';
import { conditionEvents, eventOf } from './hotupgrade-events.ts';
import { endedBadly, type StatusInput, statusOf } from './hotupgrade-status.ts';
import { lacking, withoutMissing } from './installed-crds.ts';
import { selects } from './selector.ts';

const hup = (name: string, more: Partial<HotUpgradeSpec> = {}, at = '2030-01-01T00:00:00Z'): HotUpgrade => ({
  metadata: { name, namespace: 'shop', uid: `uid-${name}`, generation: 3, creationTimestamp: new Date(at) },
  spec: {
    selector: { matchLabels: { app: 'web' } },
    container: 'proxy',
    target: { image: 'b:1' },
    emptyImage: 'e:1',
    ...more,
  },
});
const pod = (name: string, labels: Record<string, string>, namespace = 'shop'): V1Pod => ({
  metadata: { name, namespace, labels, uid: name },
});

describe('selects', () => {
  it.each<[LabelSelector, Record<string, string>, boolean]>([
    [{ matchLabels: { a: '1' } }, { a: '1', b: '2' }, true],
    [{ matchLabels: { a: '1' } }, { a: '2' }, false],
    [{ matchExpressions: [{ key: 'a', operator: 'In', values: ['1', '2'] }] }, { a: '2' }, true],
    [{ matchExpressions: [{ key: 'a', operator: 'In', values: ['1'] }] }, {}, false],
    [{ matchExpressions: [{ key: 'a', operator: 'NotIn', values: ['1'] }] }, { a: '1' }, false],
    [{ matchExpressions: [{ key: 'a', operator: 'NotIn', values: ['1'] }] }, {}, true],
    [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }, { a: '' }, true],
    [{ matchExpressions: [{ key: 'a', operator: 'DoesNotExist' }] }, { a: '' }, false],
  ])('%j of %j: %s', (selector, labels, expected) => {
    expect(selects(selector, labels)).toBe(expected);
  });
});

describe('claims', () => {
  const elder = hup('elder');
  const younger = hup(
    'younger',
    { selector: { matchExpressions: [{ key: 'app', operator: 'Exists' }] } },
    '2030-01-01T00:00:01Z',
  );
  const pods = [pod('a', { app: 'web' }), pod('b', { app: 'api' }), pod('c', { app: 'web' }, 'other')];

  it('are the oldest one’s, in its own namespace', () => {
    const all = [younger, elder];
    expect(claimsOf(elder, all, pods)).toMatchObject({ own: [pods[0]], conflicts: [] });
    expect(claimsOf(younger, all, pods)).toEqual({ own: [pods[1]], conflicts: [{ pod: 'a', owner: 'elder' }] });
    expect(ownerOf(pods[0] as V1Pod, all)?.metadata?.name).toBe('elder');
  });

  it('of one second are the same for whoever looks', () => {
    const twin = hup('twin');
    const owners = [
      [elder, twin],
      [twin, elder],
    ].map((all) => ownerOf(pods[0] as V1Pod, all)?.metadata?.name);
    expect(new Set(owners).size).toBe(1);
    const [one, two] = [claimsOf(elder, [elder, twin], pods), claimsOf(twin, [elder, twin], pods)];
    expect(one.own.length + two.own.length).toBe(1);
  });
});

it('a SidecarSet belongs to the oldest that names it for the same Pods', () => {
  const kruise = { provider: 'OpenKruise', sidecarSet: 'sidecar' } as const;
  const elder = hup('elder', kruise);
  const younger = hup('younger', kruise, '2030-01-01T00:00:01Z');
  const all = [younger, elder];
  expect(sidecarSetOwner(younger, all)?.metadata?.name).toBe('elder');
  expect(sidecarSetOwner(elder, all)).toBeUndefined();
  // One that the set refuses, for it does not select its Pods, keeps nobody from it.
  const other = hup('other', { ...kruise, selector: { matchLabels: { app: 'api' } } });
  expect(sidecarSetOwner(younger, [younger, other, hup('plain')])).toBeUndefined();
});

describe('rolloutSpecOf', () => {
  it('says the same in the words of rollouts', () => {
    const spec = rolloutSpecOf(
      hup('web', {
        strategy: {
          partition: '10%',
          maxUnavailable: 2,
          canaryPods: ['web-0'],
          batches: [4, '50%'],
          pauseSeconds: 3,
          promotion: 'Manual',
          topologyKey: 'zone',
          until: 'Reset',
        },
        analysis: { maxP99Ms: 250, windowSeconds: 5, onFailure: 'Rollback' },
      }),
      DEFAULT_POLICY,
    );
    expect(spec.strategy).toEqual({
      partition: '10%',
      maxUnavailable: 2,
      canary: ['web-0.shop'],
      batches: [4, '50%'],
      pauseBetweenMs: 3_000,
      promotion: 'manual',
      spread: 'zone',
      until: 'reset',
    });
    expect(spec.analysis).toEqual({ ...DEFAULT_ANALYSIS, maxP99Ms: 250, windowMs: 5_000, onFailure: 'rollback' });
    expect(spec.pods).toMatchObject({ namespace: 'shop', name: 'web', provider: 'InPlace', emptyImage: 'e:1' });
  });

  it('has the defaults of rollouts', () => {
    const { strategy, analysis } = rolloutSpecOf(hup('web'), DEFAULT_POLICY);
    expect([strategy, analysis]).toEqual([DEFAULT_STRATEGY, DEFAULT_ANALYSIS]);
  });
});

describe('policyOf', () => {
  const slow: DrainPolicyObject = { spec: { maxDrainMs: 7 } };
  const find = (namespace: string, name: string) => (`${namespace}/${name}` === 'shop/slow' ? slow : undefined);
  it('is the inline one, the named one, or the controller’s', () => {
    const standard = { ...DEFAULT_POLICY, maxDrainMs: 1 };
    const of = (policy: HotUpgradeSpec['policy']) => policyOf(hup('web', policy && { policy }), find, standard);
    expect(of(undefined)).toEqual({ value: standard });
    expect(of({ inline: { atDeadline: 'ask' } })).toEqual({ value: { ...standard, atDeadline: 'ask' } });
    expect(of({ name: 'slow' })).toEqual({ value: { ...standard, maxDrainMs: 7 } });
    expect(of({ name: 'none' })).toMatchObject({ problem: { reason: 'PolicyNotFound' } });
    expect(of({ inline: { maxDrainMs: -1 } })).toMatchObject({ problem: { reason: 'PolicyInvalid' } });
  });
});

describe('statusOf', () => {
  const input: StatusInput = {
    hup: hup('web'),
    state: undefined,
    seen: { observed: [], refused: [], silent: [], images: [] },
    conflicts: [],
    problem: undefined,
    missing: [],
    between: 0,
    fence: 7,
    now: new Date('2030-01-02T03:04:05.678Z'),
  };
  const of = (more: Partial<StatusInput>) => statusOf({ ...input, ...more });
  const condition = (more: Partial<StatusInput>, type: string) => of(more).conditions?.find((one) => one.type === type);

  it('names what is wrong, each by its own condition', () => {
    expect(condition({ problem: { reason: 'PolicyNotFound', message: 'm' } }, 'Accepted')).toMatchObject({
      status: 'False',
      reason: 'PolicyNotFound',
      observedGeneration: 3,
      lastTransitionTime: '2030-01-02T03:04:05Z',
    });
    expect(condition({ conflicts: [{ pod: 'a', owner: 'elder' }] }, 'Conflict')?.message).toContain('HotUpgrade elder');
    expect(condition({ missing: ['spec.strategy.canary'] }, 'SchemaCurrent')).toMatchObject({ status: 'False' });
    const refused = [{ pod: 'a', reason: 'ForeignProxy', message: 'container istio-proxy' }];
    const seen = { ...(input.seen as NonNullable<StatusInput['seen']>), refused, silent: ['b'] };
    expect(condition({ seen }, 'PodsRefused')).toMatchObject({ status: 'True', reason: 'ForeignProxy' });
    expect(condition({ seen }, 'AgentsHeard')).toMatchObject({ status: 'False', reason: 'AgentsAway' });
    expect(of({ problem: { reason: 'x', message: 'why' } })).toMatchObject({
      phase: 'Pending',
      reason: 'why',
      fence: 7,
    });
  });

  it('keeps a bad end whose rollout is not stored any more: the target is not begun anew, however often it is looked at', () => {
    const failed = {
      type: 'Failed',
      status: 'True',
      reason: 'RolledBack',
      message: 'm',
      lastTransitionTime: '',
    } as const;
    const before = { observedGeneration: 3, phase: 'RolledBack', reason: 'analysis: 1 crash', rollout: 'r1' };
    const ended = { ...hup('web'), status: { ...before, conditions: [failed] } };
    const after = of({ hup: ended });
    expect(after).toMatchObject(before);
    expect(condition({ hup: ended }, 'Failed')).toMatchObject({ status: 'True', reason: 'RolledBack' });
    expect(endedBadly({ ...ended, status: after })).toBe(true);
    // What was changed since is another thing.
    expect(of({ hup: { ...ended, metadata: { ...ended.metadata, generation: 4 } } }).phase).toBe('Pending');
  });

  it('keeps the conditions within what the CRD allows, also of a large fleet', () => {
    const refused = Array.from({ length: 50 }, (_, n) => ({
      pod: `p${n}`,
      reason: 'ForeignProxy',
      message: 'x'.repeat(900),
    }));
    const status = of({ seen: { ...(input.seen as NonNullable<StatusInput['seen']>), refused } });
    expect(status.refused).toHaveLength(20);
    expect(status.conditions?.length).toBeLessThanOrEqual(16);
    expect(Math.max(...(status.conditions ?? []).map(({ message }) => message.length))).toBeLessThanOrEqual(2_048);
  });

  it('tells a pause by the analysis, and how to go on', () => {
    const state = {
      ...newRollout('r1', rolloutSpecOf(hup('web'), DEFAULT_POLICY), 1),
      phase: 'Paused' as const,
      reason: 'analysis: 1 failed upgrades',
      pause: { by: 'analysis' as const, reason: 'analysis: 1 failed upgrades', at: 1 },
    };
    expect(condition({ state }, 'Failed')).toMatchObject({ status: 'True', reason: 'AnalysisFailed' });
    expect(condition({ state }, 'Failed')?.message).toContain('sluice rollout resume r1');
    expect(condition({ state }, 'Progressing')).toMatchObject({ status: 'False', reason: 'PausedByAnalysis' });
  });
});

it('a condition keeps its time while its status stays', () => {
  const found = (status: Condition['status']) => [{ type: 'Accepted', status, reason: 'R', message: '' }];
  const first = nextConditions([], found('True'), 1, new Date(0));
  const later = nextConditions(first, found('True'), 2, new Date(10_000));
  expect(later[0]).toMatchObject({ lastTransitionTime: '1970-01-01T00:00:00Z', observedGeneration: 2 });
  expect(nextConditions(later, found('False'), 2, new Date(10_000))[0]?.lastTransitionTime).toBe(
    '1970-01-01T00:00:10Z',
  );
});

it('events are told of what became bad, once, and of phases', () => {
  const bad = [
    { type: 'Conflict', status: 'True' as const, reason: 'OtherHotUpgrade', message: 'm', lastTransitionTime: '' },
  ];
  expect(conditionEvents(undefined, { conditions: bad })).toMatchObject([
    { type: 'Warning', reason: 'OtherHotUpgrade' },
  ]);
  expect(conditionEvents({ conditions: bad }, { conditions: bad })).toEqual([]);
  const entry = { rolloutId: 'r', seq: 0, at: 0, phase: 'RolledBack' as const, event: 'phase', text: 't' };
  expect(eventOf(entry)).toMatchObject({ type: 'Warning', reason: 'RolledBack' });
  expect(eventOf({ ...entry, event: 'serving' })).toBeUndefined();
});

it('fields that an older CRD lacks are found at any depth, and left out of a status', () => {
  const own = {
    properties: { spec: { properties: { a: {}, b: { items: { properties: { c: {}, d: {} } } } } }, status: {} },
  };
  const served = { properties: { spec: { properties: { b: { items: { properties: { c: {} } } } } } } };
  expect(lacking(own, served)).toEqual(['spec.a', 'spec.b[].d', 'status']);
  expect(withoutMissing({ phase: 'Done', rollout: 'r' }, ['status.rollout'])).toEqual({ phase: 'Done' });
});
