import { SluiceError } from '@sluice/contract';
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';
import type { Path } from './mapping.ts';
import type { Json } from './types.ts';

export interface ParsedDocument {
  readonly json: Json;
  /** Line (from 1) of what stands at a path, or of its nearest parent. */
  line(path: Path): number;
}

/** Every document of a YAML or JSON file. Throws RESOURCE_INVALID with file and line. */
export function parseDocuments(file: string, text: string): ParsedDocument[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, merge: true, strict: true, prettyErrors: false });
  const list: Document[] = 'empty' in documents ? [] : [...documents];
  const parsed: ParsedDocument[] = [];
  for (const doc of list) {
    const [error] = doc.errors;
    if (error !== undefined) {
      throw new SluiceError('RESOURCE_INVALID', `${file}:${lines.linePos(error.pos[0]).line}: ${error.message}`);
    }
    if (doc.contents === null || (isScalar(doc.contents) && doc.contents.value === null)) continue;
    parsed.push({ json: toJson(file, doc), line: (path) => lines.linePos(offsetOf(doc, path)).line });
  }
  return parsed;
}

function toJson(file: string, doc: Document): Json {
  try {
    // Bounded, so that aliases of aliases can not fill the memory.
    return doc.toJS({ maxAliasCount: 100 }) as Json;
  } catch (error) {
    throw new SluiceError('RESOURCE_INVALID', `${file}: ${(error as Error).message}`, { cause: error });
  }
}

function offsetOf(doc: Document, path: Path): number {
  let node: unknown = doc.contents;
  let offset = start(node) ?? 0;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(doc);
    let key: unknown;
    if (isMap(node)) {
      const pair = node.items.find(({ key: k }) => (isScalar(k) ? String(k.value) : String(k)) === String(part));
      key = pair?.key;
      node = pair?.value;
    } else if (isSeq(node)) {
      node = node.items[Number(part)];
    } else {
      break;
    }
    if (node === undefined && key === undefined) break;
    offset = start(key) ?? start(node) ?? offset;
  }
  return offset;
}

function start(node: unknown): number | undefined {
  return (node as Node | undefined | null)?.range?.[0];
}
