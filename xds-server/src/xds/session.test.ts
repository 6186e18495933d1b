import { describe, expect, it } from 'vitest';
import type { ResourceKind } from '../resources/types.ts';
import { type Marks, snapshot } from './fixtures.ts';
import { type Mode, type Outgoing, Session } from './session.ts';
import { Encoder } from './snapshot.ts';

const encoder = new Encoder();

/** A session and what it has sent; `sent` names each response `kind name,name -removed`. */
function client(mode: Mode, marks: Marks) {
  const session = new Session(mode);
  const last = new Map<ResourceKind, Outgoing>();
  const names = new Map<ResourceKind, readonly string[]>();
  session.setSnapshot(snapshot(marks, encoder));
  const flush = (): string[] =>
    session.next().map((outgoing) => {
      last.set(outgoing.kind, outgoing);
      const { plan } = outgoing;
      const carried = plan.resources.map((resource) => resource.name).sort();
      return [outgoing.kind, carried.join(), ...plan.removed.map((name) => `-${name}`)].join(' ').trim();
    });
  return {
    session,
    nonce: (kind: ResourceKind) => last.get(kind)?.nonce ?? '',
    set: (next: Marks) => {
      session.setSnapshot(snapshot(next, encoder));
      return flush();
    },
    ask: (kind: ResourceKind, list: readonly string[] = [], more: object = {}) => {
      names.set(kind, list);
      session.request(kind, { names: list, nonce: '', ...more });
      return flush();
    },
    ack: (kind: ResourceKind, list = mode === 'sotw' ? (names.get(kind) ?? []) : []) => {
      names.set(kind, list);
      session.request(kind, { names: list, nonce: last.get(kind)!.nonce });
      return flush();
    },
    nack: (kind: ResourceKind) => {
      const list = mode === 'sotw' ? (names.get(kind) ?? []) : [];
      session.request(kind, { names: list, nonce: last.get(kind)!.nonce, error: 'bad' });
      return flush();
    },
    flush,
  };
}

describe.each(['sotw', 'delta'] as const)('a name of which nothing is known yet (%s)', (mode) => {
  it('is neither sent nor told to be gone', () => {
    const c = client(mode, { ecds: { filter: 1 } });
    const withheld = new Map([['ecds' as const, new Set(['order'])]]);
    const known = snapshot({ ecds: { filter: 1 } }, encoder);
    c.session.setSnapshot({ ...known, withholds: (kind, name) => withheld.get(kind as 'ecds')?.has(name) ?? false });
    expect(c.ask('ecds', ['order', 'filter'])).toEqual(['ecds filter']);
    expect(c.ack('ecds', mode === 'sotw' ? ['order', 'filter'] : [])).toEqual([]);
    expect(c.set({ ecds: { filter: 1, order: 1 } })).toEqual(['ecds order']);
  });
});

describe('state of the world', () => {
  it('takes no names in the first request as everything', () => {
    const c = client('sotw', { lds: { a: 1, b: 1 } });
    expect(c.ask('lds')).toEqual(['lds a,b']);
  });

  it('takes no names after some names as nothing', () => {
    const c = client('sotw', { lds: { a: 1, b: 1 } });
    expect(c.ask('lds', ['a'])).toEqual(['lds a']);
    expect(c.ack('lds', [])).toEqual([]);
    expect(c.set({ lds: { a: 2, b: 2 } })).toEqual([]);
  });

  it('takes * beside names as everything', () => {
    const c = client('sotw', { lds: { a: 1, b: 1 } });
    expect(c.ask('lds', ['*', 'a'])).toEqual(['lds a,b']);
  });

  it('answers with nothing when there are no listeners, so that Envoy goes on', () => {
    expect(client('sotw', {}).ask('lds')).toEqual(['lds']);
  });

  it('says nothing of a route that does not exist, and sends it when it does', () => {
    const c = client('sotw', {});
    expect(c.ask('rds', ['r'])).toEqual([]);
    expect(c.set({ rds: { r: 1 } })).toEqual(['rds r']);
  });

  it('sends the whole state of listeners and only the changed ones of routes', () => {
    const c = client('sotw', { lds: { a: 1, b: 1 }, rds: { r: 1, s: 1 } });
    c.ask('lds');
    c.ack('lds');
    c.ask('rds', ['r', 's']);
    c.ack('rds');
    expect(c.set({ lds: { a: 2, b: 1 }, rds: { r: 2, s: 1 } })).toEqual(['lds a,b']);
    expect(c.ack('lds')).toEqual(['rds r']);
  });

  it('ignores a request with an old nonce whole', () => {
    const c = client('sotw', { rds: { r: 1, s: 1 } });
    c.ask('rds', ['r']);
    c.ack('rds');
    c.set({ rds: { r: 2, s: 1 } });
    expect(c.session.request('rds', { names: ['r', 's'], nonce: '1' })).toBeUndefined();
    expect(c.flush()).toEqual([]);
    expect(c.ack('rds', ['r', 's'])).toEqual(['rds s']);
  });

  it('sends again what was unsubscribed and is asked for anew', () => {
    const c = client('sotw', { eds: { e: 1, f: 1 } });
    c.ask('eds', ['e', 'f']);
    c.ack('eds', ['e', 'f']);
    expect(c.ack('eds', ['f'])).toEqual([]);
    expect(c.ack('eds', ['e', 'f'])).toEqual(['eds e']);
  });

  it('waits for the answer before the next response, and then sends the latest state', () => {
    const c = client('sotw', { rds: { r: 1 } });
    c.ask('rds', ['r']);
    expect(c.set({ rds: { r: 2 } })).toEqual([]);
    expect(c.set({ rds: { r: 3 } })).toEqual([]);
    expect(c.ack('rds')).toEqual(['rds r']);
    expect(c.ack('rds')).toEqual([]);
  });

  it('does not send a refused set of listeners again until it changes', () => {
    const c = client('sotw', { lds: { a: 1 } });
    c.ask('lds');
    expect(c.nack('lds')).toEqual([]);
    expect(c.set({ lds: { a: 1 } })).toEqual([]);
    expect(c.set({ lds: { a: 2 } })).toEqual(['lds a']);
  });
});

describe('delta', () => {
  it('sends what changed and names what is gone', () => {
    const c = client('delta', { lds: { a: 1, b: 1 } });
    expect(c.ask('lds')).toEqual(['lds a,b']);
    c.ack('lds');
    expect(c.set({ lds: { a: 2, c: 1 } })).toEqual(['lds a,c -b']);
  });

  it('sends nothing that a reconnecting client still has', () => {
    const first = snapshot({ lds: { a: 1, b: 1 } }, encoder);
    const c = client('delta', { lds: { a: 1, b: 2 } });
    const initial = new Map(['a', 'b'].map((name) => [name, first.get('lds', name)!.version]));
    initial.set('old', '1');
    expect(c.ask('lds', [], { initial })).toEqual(['lds b -old']);
  });

  it('says once that a name does not exist, and sends it when it does', () => {
    const c = client('delta', {});
    expect(c.ask('ecds', ['x'])).toEqual(['ecds  -x']);
    expect(c.ack('ecds')).toEqual([]);
    expect(c.set({ ecds: { x: 1 } })).toEqual(['ecds x']);
  });

  it('sends again what is asked for again', () => {
    const c = client('delta', { eds: { e: 1 } });
    c.ask('eds', ['e']);
    c.ack('eds');
    expect(c.ask('eds', ['e'])).toEqual(['eds e']);
  });

  it('applies names whatever the nonce says', () => {
    const c = client('delta', { rds: { r: 1, s: 1 } });
    c.ask('rds', ['r']);
    c.ack('rds');
    expect(c.ask('rds', ['s'], { nonce: 'stale' })).toEqual(['rds s']);
  });

  it('stops sending what is unsubscribed', () => {
    const c = client('delta', { rds: { r: 1, s: 1 } });
    c.ask('rds', ['r', 's']);
    c.ack('rds');
    c.ask('rds', [], { unsubscribe: ['r'] });
    expect(c.set({ rds: { r: 2, s: 2 } })).toEqual(['rds s']);
  });

  it('tells a client that drops a name under a wildcard that it still has it', () => {
    const c = client('delta', { lds: { a: 1 } });
    c.ask('lds', ['*', 'a', 'x']);
    c.ack('lds');
    expect(c.ask('lds', [], { unsubscribe: ['a', 'x'] })).toEqual(['lds a -x']);
  });

  it('keeps the names when the wildcard goes', () => {
    const c = client('delta', { lds: { a: 1, b: 1 } });
    c.ask('lds', ['*', 'a']);
    c.ack('lds');
    c.ask('lds', [], { unsubscribe: ['*'] });
    expect(c.set({ lds: { a: 2, b: 2 } })).toEqual(['lds a']);
  });
});

describe.each(['sotw', 'delta'] as const)('%s: what is refused', (mode) => {
  it('finds the one to blame, so that it keeps no other away', () => {
    const c = client(mode, { ecds: { a: 1, bad: 1, c: 1, d: 1 } });
    expect(c.ask('ecds', ['a', 'bad', 'c', 'd'])).toEqual(['ecds a,bad,c,d']);
    expect(c.nack('ecds')).toEqual(['ecds a,bad']);
    expect(c.nack('ecds')).toEqual(['ecds a']);
    expect(c.ack('ecds')).toEqual(['ecds bad,c']);
    expect(c.nack('ecds')).toEqual(['ecds bad']);
    expect(c.nack('ecds')).toEqual(['ecds c']);
    expect(c.ack('ecds')).toEqual(['ecds d']);
    expect(c.ack('ecds')).toEqual([]);
    expect(c.set({ ecds: { a: 1, bad: 2, c: 1, d: 1 } })).toEqual(['ecds bad']);
  });
});

describe.each(['sotw', 'delta'] as const)('%s: make before break', (mode) => {
  const old: Marks = { cds: { one: 1 }, eds: { one: 1 }, lds: { web: 1 }, rds: { r: 1 } };
  const next: Marks = { cds: { two: 1 }, eds: { two: 1 }, lds: { web: 2 }, rds: { r: 2 } };
  function settled() {
    const c = client(mode, old);
    c.ask('cds');
    c.ack('cds');
    c.ask('eds', ['one']);
    c.ack('eds');
    c.ask('lds');
    c.ack('lds');
    c.ask('rds', ['r']);
    c.ack('rds');
    return c;
  }

  it('sends clusters, then listeners, then routes, and removes the old cluster last', () => {
    const c = settled();
    expect(c.set(next)).toEqual([mode === 'sotw' ? 'cds one,two' : 'cds two']);
    if (mode === 'sotw') expect(c.ask('eds', ['one', 'two'], { nonce: c.nonce('eds') })).toEqual(['eds two']);
    else expect(c.ask('eds', ['two'])).toEqual(['eds two']);
    expect(c.ack('cds')).toEqual([]);
    expect(c.ack('eds')).toEqual(['lds web']);
    expect(c.ack('lds')).toEqual(['rds r']);
    expect(c.ack('rds')).toEqual(mode === 'sotw' ? ['cds two'] : ['cds  -one', 'eds  -one']);
  });

  it('goes on when the clusters are refused', () => {
    const c = settled();
    c.set(next);
    expect(c.nack('cds')).toEqual(['lds web']);
  });

  it('goes on when a client that answers nothing is overdue', () => {
    const c = settled();
    c.set({ ...old, cds: { one: 2 }, lds: { web: 2 } });
    expect(c.flush()).toEqual([]);
    c.session.overdue = true;
    expect(c.flush()).toEqual(['lds web']);
  });

  it('sends the endpoints of a changed cluster once more, because Envoy waits for them', () => {
    const c = settled();
    expect(c.set({ ...old, cds: { one: 2 } })).toEqual(['cds one', 'eds one']);
  });

  it('never holds a drain order back', () => {
    const c = settled();
    c.ask('ecds', ['sluice.drain']);
    if (mode === 'delta') c.ack('ecds');
    expect(c.set({ ...next, ecds: { 'sluice.drain': 1 } })).toContain('ecds sluice.drain');
  });
});
