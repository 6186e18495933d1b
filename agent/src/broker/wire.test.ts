import fc from 'fast-check';
import { expect, test } from 'vitest';
import { namesOf } from './names.ts';
import { bytesField, varintField } from './protobuf.ts';
import { cutDescriptor, judgeSchema, PROTO_FILE, RELIED_ON } from './schema.ts';
import {
  Assembler,
  decodeMessage,
  encodeEmptyStatsReply,
  encodeListenSocketReply,
  encodeListenSocketRequest,
  encodeNotRecognized,
  encodeRequest,
  encodeShutdownAdminReply,
  type Message,
} from './wire.ts';

/** Datagrams recorded between two real Envoys of each version, for one listener on 127.0.0.1:23020 and two workers. */
const SINCE_1_36: readonly (readonly [string, Message])[] = [
  ['00000000000000040a021200', { kind: 'shutdownAdmin' }],
  [
    '000000000000001b0a190a170a157463703a2f2f3132372e302e302e313a3233303230',
    { kind: 'passListenSocket', address: 'tcp://127.0.0.1:23020', worker: 0 },
  ],
  ['000000000000000612040a020817', { kind: 'passListenSocketReply', fd: 23 }],
  [
    '000000000000001d0a1b0a190a157463703a2f2f3132372e302e302e313a32333032301001',
    { kind: 'passListenSocket', address: 'tcp://127.0.0.1:23020', worker: 1 },
  ],
  ['00000000000000040a021a00', { kind: 'stats' }],
  ['00000000000000040a022200', { kind: 'drainListeners' }],
  ['00000000000000040a022a00', { kind: 'terminate' }],
];
const GOLDEN: Readonly<Record<string, readonly (readonly [string, Message])[]>> = {
  '1.36.4': [...SINCE_1_36, started('000000000000000c120a120808dfcc84d8061001', 1795237471n)],
  '1.37.0': [...SINCE_1_36, started('000000000000000c120a120808e2cc84d8061001', 1795237474n)],
  '1.38.3': [...SINCE_1_36, started('000000000000000c120a120808e6cc84d8061001', 1795237478n)],
  '1.39.3': [...SINCE_1_36, started('000000000000000c120a120808e9cc84d8061001', 1795237481n)],
  '1.40.0': [...SINCE_1_36, started('000000000000000c120a120808edcc84d8061001', 1795237485n)],
};

function started(hex: string, originalStartSeconds: bigint): readonly [string, Message] {
  return [hex, { kind: 'shutdownAdminReply', originalStartSeconds, reusePortDefault: true }];
}

function decode(datagram: Buffer): Message | undefined {
  return new Assembler().push(datagram)?.message;
}

test.each(Object.entries(GOLDEN))('what Envoy %s says is understood', (_, datagrams) => {
  for (const [hex, message] of datagrams) expect(decode(Buffer.from(hex, 'hex'))).toEqual(message);
});

test('what we write is what Envoy writes, byte by byte', () => {
  const written = [
    encodeRequest('shutdownAdmin'),
    encodeListenSocketRequest({ address: 'tcp://127.0.0.1:23020', worker: 0 }),
    encodeListenSocketRequest({ address: 'tcp://127.0.0.1:23020', worker: 1 }),
    encodeRequest('stats'),
    encodeRequest('drainListeners'),
    encodeRequest('terminate'),
    encodeShutdownAdminReply(1795237471n),
  ].map((datagram) => datagram.toString('hex'));
  const golden = GOLDEN['1.36.4']!.map(([hex]) => hex).filter((hex) => hex !== '000000000000000612040a020817');
  expect(written).toEqual(golden);
  expect(decode(encodeListenSocketReply(true))).toMatchObject({ kind: 'passListenSocketReply', fd: 1 });
  expect(decode(encodeListenSocketReply(false))).toEqual({ kind: 'passListenSocketReply', fd: -1 });
  expect(decode(encodeEmptyStatsReply())).toEqual({ kind: 'statsReply' });
  expect(decode(encodeNotRecognized())).toEqual({ kind: 'notRecognized' });
});

test('a request for a socket survives the way there and back', () => {
  const request = fc.record(
    { address: fc.string({ minLength: 1 }), worker: fc.nat(0xffffffff), networkNamespace: fc.string({ minLength: 1 }) },
    { requiredKeys: ['address', 'worker'] },
  );
  fc.assert(
    fc.property(request, (each) => {
      expect(decode(encodeListenSocketRequest(each))).toEqual({ kind: 'passListenSocket', ...each });
    }),
  );
});

test('bytes of any kind are a message or unknown, never an exception', () => {
  const nested = fc.uint8Array({ maxLength: 40 }).map((bytes) => bytesField(1, bytesField(1, bytes)));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 200 }), nested), (bytes) => {
      expect(decodeMessage(Buffer.from(bytes))).toHaveProperty('kind');
    }),
    { numRuns: 2000 },
  );
});

test('datagrams of any kind give messages or one clear error', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 64 }), { maxLength: 8 }), (datagrams) => {
      const assembler = new Assembler();
      for (const each of datagrams) {
        try {
          assembler.push(Buffer.from(each));
        } catch (error) {
          expect(error).toMatchObject({ name: 'SluiceError', code: 'PREFLIGHT_WIRE' });
        }
      }
    }),
    { numRuns: 1000 },
  );
});

test('a message in several datagrams is put together, and goes on in the same datagrams', () => {
  const whole = Buffer.concat([Buffer.alloc(8), bytesField(2, bytesField(3, varintField(1, 7n)))]);
  whole.writeBigUInt64BE(BigInt(whole.length - 8));
  const stats = Buffer.concat([whole]);
  const body = Buffer.alloc(9_000, 1);
  const long = Buffer.concat([Buffer.alloc(8), bytesField(2, bytesField(3, bytesField(9, body)))]);
  long.writeBigUInt64BE(BigInt(long.length - 8));
  const assembler = new Assembler();
  const parts = [long.subarray(0, 4096), long.subarray(4096, 8192), long.subarray(8192)];
  expect(assembler.push(parts[0]!)).toBeUndefined();
  expect(assembler.push(parts[1]!)).toBeUndefined();
  expect(assembler.push(parts[2]!)).toEqual({ message: { kind: 'statsReply' }, datagrams: parts });
  expect(assembler.push(stats)?.message).toEqual({ kind: 'statsReply' });
});

test('names follow from each side`s own epoch and path', () => {
  expect(namesOf(8, { epoch: 4, socketPath: '@a' })).toEqual({
    parent: 'a_parent_81',
    child: 'a_child_81',
    itsParent: 'a_parent_80',
    itsChild: 'a_child_82',
  });
  expect(namesOf(8, { epoch: 0, socketPath: '@a' }).itsParent).toBe('a_parent_82');
  expect(() => namesOf(8, { epoch: 0, socketPath: '/a' })).toThrow(/abstract/);
});

/** A FileDescriptorProto with just these fields. */
function descriptor(fields: Readonly<Record<string, string>>): Buffer {
  const tree: Tree = { fields: [], nested: new Map() };
  for (const [path, form] of Object.entries(fields)) {
    const names = path.split('.');
    const field = names.pop()!;
    let node = tree;
    for (const name of names) {
      const next = node.nested.get(name) ?? { fields: [], nested: new Map() };
      node.nested.set(name, next);
      node = next;
    }
    node.fields.push([field, form]);
  }
  const messages = [...tree.nested].map(([name, node]) => bytesField(4, message(name, node)));
  return Buffer.concat([bytesField(1, Buffer.from(PROTO_FILE)), ...messages, bytesField(12, Buffer.from('proto3'))]);
}

interface Tree {
  readonly fields: [string, string][];
  readonly nested: Map<string, Tree>;
}

function message(name: string, node: Tree): Buffer {
  const fields = node.fields.map(([field, form]) => {
    const [number, type] = form.split(' ').map(BigInt);
    return bytesField(
      2,
      Buffer.concat([bytesField(1, Buffer.from(field)), varintField(3, number!), varintField(5, type!)]),
    );
  });
  const nested = [...node.nested].map(([each, child]) => bytesField(3, message(each, child)));
  return Buffer.concat([bytesField(1, Buffer.from(name)), ...fields, ...nested]);
}

test('a schema is known only with every field that is relied on', () => {
  expect(judgeSchema(descriptor(RELIED_ON))).toMatchObject({ ok: true });
  for (const name of Object.keys(RELIED_ON)) {
    expect(judgeSchema(descriptor({ ...RELIED_ON, [name]: '9 9' }))).toMatchObject({ ok: false });
  }
  const further = { ...RELIED_ON, 'HotRestartMessage.Request.pass_connections': '8 11' };
  expect(judgeSchema(descriptor(further)).found).toContain('pass_connections');
});

test('a descriptor is cut out of what surrounds it', () => {
  const exact = descriptor(RELIED_ON);
  const rest = fc.uint8Array({ maxLength: 50 }).filter((bytes) => bytes[0] !== 98);
  fc.assert(
    fc.property(rest, (after) => {
      expect(cutDescriptor(Buffer.concat([exact, after])).equals(exact)).toBe(true);
    }),
  );
});
