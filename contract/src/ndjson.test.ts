import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { encodeLine, NdjsonDecoder } from './ndjson.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('NdjsonDecoder', () => {
  it('gives back what was encoded, however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue()), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
        (objects, cuts) => {
          const stream = bytes(objects.map(encodeLine).join(''));
          const decoder = new NdjsonDecoder();
          const out: unknown[] = [];
          for (let at = 0, i = 0; at < stream.length; i += 1) {
            const size = cuts[i % cuts.length]!;
            out.push(...decoder.push(stream.subarray(at, at + size)));
            at += size;
          }
          expect(out).toEqual(objects.map((object) => JSON.parse(JSON.stringify(object))));
          expect(decoder.pending).toBe(0);
        },
      ),
    );
  });

  it('does not keep the caller’s buffer', () => {
    const decoder = new NdjsonDecoder();
    const buffer = bytes('{"a":');
    decoder.push(buffer);
    buffer.fill(0);
    expect(decoder.push(bytes('1}\n'))).toEqual([{ a: 1 }]);
  });

  it('refuses a line past its bound, finished or not, and holds nothing of it', () => {
    const decoder = new NdjsonDecoder(16);
    decoder.push(bytes('{"a":"'));
    expect(() => decoder.push(bytes('x'.repeat(11)))).toThrow(/at most 16 bytes/);
    expect(decoder.pending).toBe(0);
    expect(() => new NdjsonDecoder(4).push(bytes('{"a":1}\n'))).toThrow(/at most 4 bytes/);
  });

  it.each(['[1]\n', '1\n', 'null\n', '{"a":\n', 'GET / HTTP/1.1\r\n'])('refuses %j by name', (line) => {
    expect(() => new NdjsonDecoder().push(bytes(line))).toThrow(/expected a JSON object a line/);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(() => new NdjsonDecoder().push(Uint8Array.of(0x7b, 0xff, 0x7d, 0x0a))).toThrow(/UTF-8/);
  });
});
