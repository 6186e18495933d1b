import { type FileHandle, open } from 'node:fs/promises';
import { cutDescriptor, PROTO_FILE } from '../broker/schema.ts';

const CHUNK = 4 * 1024 * 1024;
/** The descriptor is some 2.5 kB. */
const DESCRIPTOR_MAX = 64 * 1024;
/** Field 1 of FileDescriptorProto, its length, the name. */
const HEAD = Buffer.concat([Buffer.from([0x0a, PROTO_FILE.length]), Buffer.from(PROTO_FILE)]);
/** The name of the call in the binary's Lua extension: 1.37.0 and later have it, 1.36.4 and builds without Lua do not. */
const LEAVE_CALL = Buffer.from('drainConnectionUponCompletion');

export interface Inside {
  /** The FileDescriptorProto of Envoy's hot restart protocol. */
  readonly descriptor?: Uint8Array;
  /** Its Lua can tell a single connection to leave. */
  readonly leave: boolean;
}

/** What an Envoy binary carries, found in one pass; nothing near its 100 MB is ever held. Throws when it can not be read. */
export async function look(path: string): Promise<Inside> {
  const file = await open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(CHUNK);
    let descriptor: Buffer | undefined;
    let leave = false;
    for (let at = 0; ; at += CHUNK - Math.max(HEAD.length, LEAVE_CALL.length)) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK, at);
      const bytes = chunk.subarray(0, bytesRead);
      leave ||= bytes.includes(LEAVE_CALL);
      descriptor ??= await descriptorIn(file, bytes, at);
      if (bytesRead < CHUNK || (leave && descriptor !== undefined)) break;
    }
    return { leave, ...(descriptor && { descriptor }) };
  } finally {
    await file.close();
  }
}

/** Those of `texts` that a file carries, in one pass. Throws when it can not be read. */
export async function lookFor(path: string, texts: readonly string[]): Promise<string[]> {
  const file = await open(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(CHUNK);
    const found = new Set<string>();
    const overlap = Math.max(0, ...texts.map((text) => Buffer.byteLength(text)));
    for (let at = 0; found.size < texts.length; at += CHUNK - overlap) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK, at);
      const bytes = chunk.subarray(0, bytesRead);
      for (const text of texts) if (bytes.includes(text)) found.add(text);
      if (bytesRead < CHUNK) break;
    }
    return texts.filter((text) => found.has(text));
  } finally {
    await file.close();
  }
}

async function descriptorIn(file: FileHandle, bytes: Buffer, at: number): Promise<Buffer | undefined> {
  for (let i = bytes.indexOf(HEAD); i >= 0; i = bytes.indexOf(HEAD, i + 1)) {
    const own = Buffer.alloc(DESCRIPTOR_MAX);
    const { bytesRead } = await file.read(own, 0, own.length, at + i);
    const descriptor = cutDescriptor(own.subarray(0, bytesRead));
    // Its name alone may also be the end of another descriptor's list of dependencies.
    if (descriptor.length > 2 * HEAD.length) return descriptor;
  }
  return undefined;
}
