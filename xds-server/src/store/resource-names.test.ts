import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { idOf, labelValue, objectName } from './resource-names.ts';
import { pack, sizeOf, unpack } from './resource-payload.ts';

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const ids = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 300 }),
  fc.string({ unit: fc.constantFrom('a', 'A', '-', '.', 'x', '0', '/'), maxLength: 12 }),
  fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 60, maxLength: 400 }),
  fc.string({ unit: fc.constantFrom('6', '1'), maxLength: 4 }).map((hex) => `x-${hex}-x`),
);

describe('objectName', () => {
  it('keeps an id that is a name', () => {
    expect(objectName('mf3k2-0a1b2c3d')).toBe('mf3k2-0a1b2c3d');
    expect(objectName('web-1.shop')).toBe('web-1.shop');
  });

  it('makes names that the API server takes, and goes back', () => {
    fc.assert(
      fc.property(ids, (id) => {
        const name = objectName(id);
        expect(name).toMatch(NAME);
        expect(name.length).toBeLessThanOrEqual(253);
        expect([id, undefined]).toContain(idOf(name));
        if (Buffer.byteLength(id) <= 124) expect(idOf(name)).toBe(id);
      }),
    );
  });

  it('gives different ids different names and labels', () => {
    fc.assert(
      fc.property(ids, ids, (one, other) => {
        if (one === other) return;
        expect(objectName(one)).not.toBe(objectName(other));
        expect(labelValue(one)).not.toBe(labelValue(other));
      }),
    );
    fc.assert(
      fc.property(ids, (id) => {
        expect(labelValue(id)).toMatch(/^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/);
      }),
    );
  });
});

describe('pack', () => {
  it('gives back what went in, long or short', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 4 }), fc.nat(3_000), (value, times) => {
        const all = JSON.parse(JSON.stringify(Array.from({ length: times % 40 ? 1 : times }, () => value)));
        const payload = pack(all);
        expect(unpack(payload, 'it')).toEqual(all);
        expect(sizeOf(payload)).toBeGreaterThan(0);
      }),
    );
    expect(pack('short')).toEqual({ json: '"short"' });
    expect(Object.keys(pack('long'.repeat(10_000)))).toEqual(['gzip']);
  });

  it('says whose payload can not be read', () => {
    for (const payload of [undefined, {}, { json: '{' }, { gzip: 'AAAA' }])
      expect(() => unpack(payload, 'upgrade u1')).toThrow(
        expect.objectContaining({ code: 'STATE_INVALID', message: expect.stringContaining('upgrade u1') }),
      );
  });
});
