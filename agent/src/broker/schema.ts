import { decodeFields, type Field, lastBytes, lastVarint } from './protobuf.ts';

/**
 * Envoy carries the descriptor of its hot restart protocol inside its binary (protobuf reflection needs it), so that a
 * binary can be asked what it speaks without being run. Here: what this build of the broker relies on.
 * `Message.field = number type`, type as in FieldDescriptorProto: 4 uint64, 5 int32, 8 bool, 9 string, 11 message, 13 uint32.
 */
export const RELIED_ON: Readonly<Record<string, string>> = {
  'HotRestartMessage.request': '1 11',
  'HotRestartMessage.reply': '2 11',
  'HotRestartMessage.didnt_recognize_your_last_message': '3 8',
  'HotRestartMessage.Request.pass_listen_socket': '1 11',
  'HotRestartMessage.Request.shutdown_admin': '2 11',
  'HotRestartMessage.Request.stats': '3 11',
  'HotRestartMessage.Request.drain_listeners': '4 11',
  'HotRestartMessage.Request.terminate': '5 11',
  'HotRestartMessage.Request.PassListenSocket.address': '1 9',
  'HotRestartMessage.Request.PassListenSocket.worker_index': '2 13',
  'HotRestartMessage.Reply.pass_listen_socket': '1 11',
  'HotRestartMessage.Reply.shutdown_admin': '2 11',
  'HotRestartMessage.Reply.stats': '3 11',
  'HotRestartMessage.Reply.PassListenSocket.fd': '1 5',
  'HotRestartMessage.Reply.ShutdownAdmin.original_start_time_unix_seconds': '1 4',
  'HotRestartMessage.Reply.ShutdownAdmin.enable_reuse_port_default': '2 8',
};

/** Requests that the broker knows how to treat; a further one is relayed untouched, but nobody has tried it. */
const KNOWN_REQUESTS = new Set([1, 2, 3, 4, 5, 6, 7]);

export interface SchemaVerdict {
  readonly ok: boolean;
  readonly found: string;
}

export const PROTO_FILE = 'source/server/hot_restart.proto';

/** Judges a serialized FileDescriptorProto of PROTO_FILE. */
export function judgeSchema(descriptor: Buffer): SchemaVerdict {
  const file = decodeFields(descriptor);
  if (file === undefined) return { ok: false, found: `a descriptor of ${PROTO_FILE} that can not be read` };
  const fields = new Map<string, string>();
  for (const message of all(file, 4)) collect(message, '', fields);
  const wrong = Object.entries(RELIED_ON).filter(([name, form]) => fields.get(name) !== form);
  if (wrong.length > 0) {
    const named = wrong.map(([name, form]) => `${name} expected ${form}, found ${fields.get(name) ?? 'none'}`);
    return { ok: false, found: named.join('; ') };
  }
  const requests = [...fields].filter(([name]) => /^HotRestartMessage\.Request\.[^.]+$/.test(name));
  const further = requests.filter(([, form]) => !KNOWN_REQUESTS.has(Number.parseInt(form, 10)));
  if (further.length > 0)
    return { ok: false, found: `requests not known: ${further.map(([name]) => name).join(', ')}` };
  return { ok: true, found: `${fields.size} fields, those relied on as expected` };
}

function all(fields: readonly Field[], number: number): Buffer[] {
  return fields.flatMap((field) => (field.number === number && field.wire === 2 ? [field.value] : []));
}

function collect(descriptor: Buffer, outer: string, into: Map<string, string>): void {
  const message = decodeFields(descriptor) ?? [];
  const name = `${outer}${lastBytes(message, 1)?.toString() ?? ''}`;
  for (const bytes of all(message, 2)) {
    const field = decodeFields(bytes) ?? [];
    into.set(`${name}.${lastBytes(field, 1)?.toString()}`, `${lastVarint(field, 3)} ${lastVarint(field, 5)}`);
  }
  for (const nested of all(message, 3)) collect(nested, `${name}.`, into);
}

/** Fields of FileDescriptorProto that the compiler writes for this file: name, package, dependency, message, options, syntax. */
const FILE_FIELDS = new Set([1, 2, 3, 4, 8, 12]);

/** The descriptor that starts at the head of `bytes`: the longest run of well-formed fields of a FileDescriptorProto. */
export function cutDescriptor(bytes: Buffer): Buffer {
  let at = 0;
  let last = 0;
  while (at < bytes.length) {
    const tag = bytes[at] ?? 0;
    if ((tag & 7) !== 2 || !FILE_FIELDS.has(tag >> 3) || tag >> 3 < last) break;
    let length = 0;
    let next = at + 1;
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = bytes[next++] ?? 0;
      length |= (byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    if (next + length > bytes.length) break;
    last = tag >> 3;
    at = next + length;
  }
  return bytes.subarray(0, at);
}
