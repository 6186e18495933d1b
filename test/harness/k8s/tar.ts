import { createReadStream, lstatSync } from 'node:fs';

/** One entry of an image's layer. A folder that an entry needs is made by whoever unpacks it. */
export interface ImageFile {
  /** In the image, absolute. */
  readonly path: string;
  /** The file of this machine that it is a copy of, with its mode. */
  readonly from?: string;
  /** Or its content; neither makes a folder. */
  readonly text?: string;
  /** Or where a symbolic link leads. */
  readonly link?: string;
  /** Default: that of `from`, else 0755 of a folder and 0644. */
  readonly mode?: number;
}

const BLOCK = 512;

/** The bytes of a tar archive (ustar, with the long names of GNU tar), owned by root and dated 1970: the same in, the same out. */
export async function* tar(files: readonly ImageFile[]): AsyncGenerator<Buffer> {
  for (const file of files) {
    const name = file.path.replace(/^\/+/, '');
    if (Buffer.byteLength(name) > 100) {
      const long = Buffer.from(`${name}\0`);
      yield header('././@LongLink', 'L', long.length, 0o644);
      yield padded(long);
    }
    const stat = file.from === undefined ? undefined : lstatSync(file.from);
    if (stat !== undefined && !stat.isFile()) throw new Error(`${file.from} is not a file`);
    if (file.link !== undefined) yield header(name, '2', 0, 0o777, file.link);
    else if (file.from !== undefined && stat !== undefined) {
      yield header(name, '0', stat.size, file.mode ?? stat.mode & 0o7777);
      let size = 0;
      for await (const chunk of createReadStream(file.from)) {
        size += (chunk as Buffer).length;
        yield chunk as Buffer;
      }
      if (size !== stat.size) throw new Error(`${file.from} changed while it was read`);
      yield Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
    } else if (file.text !== undefined) {
      const content = Buffer.from(file.text);
      yield header(name, '0', content.length, file.mode ?? 0o644);
      yield padded(content);
    } else yield header(`${name}/`, '5', 0, file.mode ?? 0o755);
  }
  yield Buffer.alloc(2 * BLOCK);
}

function header(name: string, type: string, size: number, mode: number, link = ''): Buffer {
  const block = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number) =>
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at);
  block.write(name.slice(0, 100), 0);
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(size, 124, 12);
  octal(0, 136, 12);
  block.fill(' ', 148, 156);
  block.write(type, 156);
  block.write(link.slice(0, 100), 157);
  block.write('ustar  \0', 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function padded(content: Buffer): Buffer {
  return Buffer.concat([content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)]);
}
