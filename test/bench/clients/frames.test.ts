import { expect, it } from 'vitest';
import { FLAG, FRAME, FrameReader, frame, headerBlock, saysOk } from './frames.ts';

it('gives whole frames, in whatever pieces the bytes come', () => {
  const bytes = Buffer.concat([
    frame(FRAME.headers, FLAG.endHeaders, 7, Buffer.from([0x88])),
    frame(FRAME.data, FLAG.endStream, 7, Buffer.from('hello')),
    frame(FRAME.settings, FLAG.ack, 0, Buffer.alloc(0)),
  ]);
  for (const size of [1, 2, 5, 9, 100]) {
    const reader = new FrameReader();
    const frames = [];
    for (let at = 0; at < bytes.length; at += size) frames.push(...reader.push(bytes.subarray(at, at + size)));
    expect(frames.map(({ type, stream, payload }) => [type, stream, payload.toString('latin1')])).toEqual([
      [FRAME.headers, 7, '\x88'],
      [FRAME.data, 7, 'hello'],
      [FRAME.settings, 0, ''],
    ]);
  }
});

it('encodes headers without a table', () => {
  const block = headerBlock('GET', '/a', 'h', [['x', 'yz']]);
  expect([...block]).toEqual([0x82, 0x86, 0x04, 2, 0x2f, 0x61, 0x01, 1, 0x68, 0x00, 1, 0x78, 2, 0x79, 0x7a]);
  expect(() => headerBlock('GET', `/${'a'.repeat(200)}`, 'h', [])).toThrow('201 bytes');
});

it('knows a 200, also after a change of the table size', () => {
  expect(saysOk(Buffer.from([0x88, 0x40]))).toBe(true);
  expect(saysOk(Buffer.from([0x20, 0x88]))).toBe(true);
  expect(saysOk(Buffer.from([0x08, 3, 0x35, 0x30, 0x33]))).toBe(false);
  expect(saysOk(Buffer.alloc(0))).toBe(false);
});
