import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { adaptRate, type Rate, rateAt } from './adapt.ts';
import { type Load, MEASURES, type Usual } from './usual.ts';

const look = (load: Omit<Load, 'seconds'> = {}): Load => ({ seconds: 1, ...load });
const full = rateAt(100);

describe('adaptRate', () => {
  it('halves the rate under strain and says why', () => {
    const slow = (usual: Usual, load: Omit<Load, 'seconds'>) => adaptRate(rateAt(100, usual), 100, usual, look(load));
    expect(slow({}, { refused: 2 })).toMatchObject({
      perSecond: 50,
      strain: 'the new epoch or its upstreams refused 2 a second, usually 0',
    });
    expect(slow({}, { busy: 0.97 }).strain).toBe('the new epoch is busy 97 % of the time');
    expect(slow({ latencyMs: 20 }, { latencyMs: 90 }).strain).toBe('nine of ten requests take up to 90 ms, usually 20');
    expect(slow({ connectMs: 1 }, { connectMs: 40 }).strain).toMatch(/upstreams take up to 40 ms, usually 1$/);
    expect(slow({}, { opened: 40, failed: 5 }).strain).toBe('5 TLS handshakes a second failed, usually 0');
    expect(slow({}, { opened: 40, unfinished: 30 }).strain).toMatch(/^TLS handshakes lag behind by 30 a second/);
    expect(slow({ arrivals: 50 }, { arrivals: 330 }).strain).toBe('330 new connections a second, usually 50');
  });

  it('is not moved by what is usual, by what it asked for itself, or by what is not known', () => {
    expect(adaptRate(full, 100, {}, look())).toMatchObject({ perSecond: 100 });
    expect(
      adaptRate(full, 100, {}, look({ busy: 0.5, latencyMs: 900, connectMs: 90, arrivals: 9_000 })).strain,
    ).toBeUndefined();
    const usual: Usual = { refused: 1, arrivals: 50, failed: 3, unfinished: 2, latencyMs: 1, connectMs: 1 };
    const load = look({
      refused: 2,
      arrivals: 310,
      opened: 60,
      failed: 8,
      unfinished: 30,
      latencyMs: 15,
      connectMs: 9,
    });
    expect(adaptRate(rateAt(100, usual), 100, usual, load).strain).toBeUndefined();
  });

  it('comes back by a tenth of the whole, and names the strain until it has', () => {
    const slow = adaptRate(full, 100, {}, look({ busy: 1 }));
    expect(adaptRate(slow, 100, {}, look())).toMatchObject({ perSecond: 60, strain: slow.strain });
    const nearly: Rate = { ...full, perSecond: 95, strain: 'x' };
    expect(adaptRate(nearly, 100, {}, look()).strain).toBeUndefined();
  });
});

const positive = (max: number) => fc.double({ min: 0, max, noNaN: true }).map((value) => Math.round(value * 1e3) / 1e3);
const levels = {
  refused: positive(1_000),
  arrivals: positive(10_000),
  opened: positive(10_000),
  failed: positive(1_000),
  unfinished: positive(1_000),
  latencyMs: positive(60_000),
  connectMs: positive(60_000),
};
const { opened: _, ...measured } = levels;
const anyLoad = fc.record({ seconds: fc.constant(1), busy: positive(1), ...levels }, { requiredKeys: ['seconds'] });
const anyUsual = fc.record(measured, { requiredKeys: [] });
const cap = fc.oneof(fc.integer({ min: 1, max: 1_000 }), fc.double({ min: 0.1, max: 1, noNaN: true }));

describe('whatever the load', () => {
  it('the rate stays within one a second and what policy allows', () => {
    fc.assert(
      fc.property(fc.array(anyLoad, { maxLength: 60 }), anyUsual, cap, (loads, base, most) => {
        let rate = rateAt(most, base);
        for (const load of loads) {
          rate = adaptRate(rate, most, base, load);
          expect(rate.perSecond).toBeGreaterThanOrEqual(Math.min(1, most));
          expect(rate.perSecond).toBeLessThanOrEqual(most);
        }
      }),
    );
  });

  it('one that lasts, with idle workers left, slows the drain for two minutes at most', () => {
    fc.assert(
      fc.property(anyLoad, anyUsual, cap, (load, base, most) => {
        const { busy: _, ...lasting } = load;
        let rate = rateAt(most, base);
        for (let s = 0; s < 120; s += 1) rate = adaptRate(rate, most, base, lasting);
        expect(rate).toMatchObject({ perSecond: most });
        expect(rate.strain).toBeUndefined();
      }),
    );
  });

  it('workers that stay busy keep it at its slowest', () => {
    let rate = rateAt(500);
    for (let s = 0; s < 1_000; s += 1) rate = adaptRate(rate, 500, {}, look({ busy: 0.95 }));
    expect(rate).toMatchObject({ perSecond: 1, strain: 'the new epoch is busy 95 % of the time' });
  });

  it('a strain that the drain itself makes never becomes usual', () => {
    fc.assert(
      fc.property(fc.integer({ min: 10, max: 1_000 }), fc.integer({ min: 3, max: 500 }), (most, bears) => {
        const base: Usual = { latencyMs: 10, connectMs: 5, arrivals: 0 };
        let rate = rateAt(most, base);
        for (let s = 0; s < 600; s += 1) {
          const strained = rate.perSecond > bears;
          rate = adaptRate(rate, most, base, look(strained ? { latencyMs: 900, refused: 9 } : { latencyMs: 10 }));
          for (const key of MEASURES) expect(rate.usual[key] ?? 0).toBeLessThanOrEqual(base[key] ?? 0);
        }
      }),
    );
  });

  it('what has become usual falls back when the strain is over', () => {
    const base: Usual = { latencyMs: 10 };
    let rate = rateAt(100, base);
    for (let s = 0; s < 200; s += 1) rate = adaptRate(rate, 100, base, look({ latencyMs: 400 }));
    expect(rate.usual.latencyMs).toBeGreaterThan(150);
    for (let s = 0; s < 900; s += 1) rate = adaptRate(rate, 100, base, look({ latencyMs: 10 }));
    expect(rate.usual.latencyMs).toBeLessThan(11);
  });
});
