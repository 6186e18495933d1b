/**
 * A folder of resource files in Envoy's own form -> a ResourceSet, or one error that names file, line and path.
 *
 *   resources/listeners.yaml       for every proxy
 *   resources/web-1/routes.json    for proxy `web-1` alone; replaces a shared resource of the same name
 *
 * A file holds `resources: [...]` (Envoy's file subscription form), a list, or one resource; YAML files may hold several
 * documents. Each resource says its type by "@type".
 */
import { type Dirent, promises as fs } from 'node:fs';
import { extname, join } from 'node:path';
import { SluiceError } from '@sluice/contract';
import { canonical, type Path, type Problem, showPath, toMessage } from './mapping.ts';
import { shown } from './scalars.ts';
import {
  isObject,
  type Json,
  type JsonObject,
  RESOURCE_TYPES,
  type ResourceKind,
  type ResourceSet,
  typeOfUrl,
} from './types.ts';
import { type ParsedDocument, parseDocuments } from './yaml.ts';

const EXTENSIONS = new Set(['.yaml', '.yml', '.json']);
const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_FILES = 10_000;
/** Problems beyond the first few of a file repeat each other. */
const MAX_SHOWN = 5;

export interface LoadedResource {
  readonly kind: ResourceKind;
  readonly name: string;
  readonly json: JsonObject;
  readonly line: number;
}

/** Results of files read before, by path: a file whose text is the same keeps its objects, and so their encoding. */
export type LoadCache = Map<string, { readonly text: string; readonly resources: readonly LoadedResource[] }>;

type Kinds = Map<ResourceKind, Map<string, JsonObject>>;

/** Reads the whole folder. Throws RESOURCE_INVALID (a bad file, named with its line) or CONFIG_INVALID (no such folder). */
export async function loadResources(dir: string, cache: LoadCache = new Map()): Promise<ResourceSet> {
  const seen = new Set<string>();
  const budget = { files: 0 };
  const entries = await listFolder(dir);
  const shared = await loadFolder(dir, entries, cache, seen, budget);
  const byProxy = new Map<string, Kinds>();
  let count = countOf(shared);
  for (const entry of entries) {
    const path = join(dir, entry.name);
    if (!(await isFolder(path, entry))) continue;
    const own = await loadFolder(path, await listFolder(path), cache, seen, budget, true);
    byProxy.set(entry.name, own);
    count += countOf(own);
  }
  for (const path of cache.keys()) if (!seen.has(path)) cache.delete(path);
  return { shared, byProxy, count };
}

function countOf(kinds: Kinds): number {
  return [...kinds.values()].reduce((sum, resources) => sum + resources.size, 0);
}

export async function listFolder(dir: string): Promise<Dirent[]> {
  try {
    const entries = await fs.readdir(dir, { withFileTypes: true });
    // Names with a dot are editors' swap files, and the `..data` of a Kubernetes volume.
    return entries.filter((e) => !e.name.startsWith('.')).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    throw new SluiceError('CONFIG_INVALID', `expected a readable resource folder, found: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

async function isFolder(path: string, entry: Dirent): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  return (await fs.stat(path)).isDirectory();
}

async function loadFolder(
  dir: string,
  entries: readonly Dirent[],
  cache: LoadCache,
  seen: Set<string>,
  budget: { files: number },
  nested = false,
): Promise<Kinds> {
  const kinds: Kinds = new Map();
  const places = new Map<string, string>();
  for (const entry of entries) {
    const path = join(dir, entry.name);
    if (await isFolder(path, entry)) {
      if (nested)
        throw new SluiceError('RESOURCE_INVALID', `${path}: expected files in a proxy's folder, found a folder`);
      continue;
    }
    if (!EXTENSIONS.has(extname(entry.name))) continue;
    budget.files += 1;
    if (budget.files > MAX_FILES)
      throw new SluiceError('RESOURCE_INVALID', `${dir}: expected at most ${MAX_FILES} files`);
    seen.add(path);
    for (const { kind, name, json, line } of await loadFile(path, cache)) {
      const key = `${kind} ${name}`;
      const other = places.get(key);
      if (other !== undefined) {
        throw new SluiceError(
          'RESOURCE_INVALID',
          `${path}:${line}: expected one ${kind.toUpperCase()} resource ${JSON.stringify(name)}, found another at ${other}`,
        );
      }
      places.set(key, `${path}:${line}`);
      const resources = kinds.get(kind) ?? new Map<string, JsonObject>();
      kinds.set(kind, resources.set(name, json));
    }
  }
  return kinds;
}

async function loadFile(path: string, cache: LoadCache): Promise<readonly LoadedResource[]> {
  const { size } = await fs.stat(path);
  if (size > MAX_FILE_BYTES) {
    throw new SluiceError('RESOURCE_INVALID', `${path}: expected at most ${MAX_FILE_BYTES} bytes, found ${size}`);
  }
  const text = await fs.readFile(path, 'utf8');
  const known = cache.get(path);
  if (known?.text === text) return known.resources;
  const resources = parseResources(path, text);
  cache.set(path, { text, resources });
  return resources;
}

/** The resources of one file. Pure. Throws RESOURCE_INVALID with file, line and path of the first few problems. */
export function parseResources(file: string, text: string): LoadedResource[] {
  return parseDocuments(file, text).flatMap((doc) =>
    itemsOf(file, doc).map(([json, path]) => check(file, doc, json, path)),
  );
}

function fail(file: string, doc: ParsedDocument, problems: readonly Problem[]): never {
  const lines = problems.slice(0, MAX_SHOWN).map(({ path, message }) => {
    const where = showPath(path);
    return `${file}:${doc.line(path)}: ${where === '' ? '' : `${where}: `}${message}`;
  });
  if (problems.length > MAX_SHOWN) lines.push(`and ${problems.length - MAX_SHOWN} more`);
  throw new SluiceError('RESOURCE_INVALID', lines.join('\n'));
}

function itemsOf(file: string, doc: ParsedDocument): [Json, Path][] {
  const { json } = doc;
  if (Array.isArray(json)) return json.map((item: Json, i) => [item, [i]]);
  if (!isObject(json)) return fail(file, doc, [{ path: [], message: `expected resources, found ${shown(json)}` }]);
  if (json['@type'] !== undefined) return [[json, []]];
  const other = Object.keys(json).find((key) => key !== 'resources' && key !== 'version_info');
  if (other !== undefined) {
    fail(file, doc, [{ path: [other], message: 'expected "resources" alone, or one resource with "@type"' }]);
  }
  const items = json.resources ?? [];
  if (!Array.isArray(items)) {
    return fail(file, doc, [{ path: ['resources'], message: `expected a list, found ${shown(items)}` }]);
  }
  return items.map((item: Json, i) => [item, ['resources', i]]);
}

function check(file: string, doc: ParsedDocument, json: Json, path: Path): LoadedResource {
  if (!isObject(json)) return fail(file, doc, [{ path, message: `expected a resource, found ${shown(json)}` }]);
  const { '@type': url, ...body } = json;
  const type = typeof url === 'string' ? typeOfUrl(url) : undefined;
  if (type === undefined) {
    const known = RESOURCE_TYPES.map((t) => t.typeUrl).join(', ');
    return fail(file, doc, [{ path: [...path, '@type'], message: `expected one of ${known}; found ${shown(url)}` }]);
  }
  const problems: Problem[] = [];
  toMessage(type.message, body, problems);
  if (problems.length > 0)
    fail(
      file,
      doc,
      problems.map((p) => ({ ...p, path: [...path, ...p.path] })),
    );
  const resource = canonical(type.message, body) as JsonObject;
  const name = resource[type.nameField];
  if (typeof name !== 'string' || name === '') {
    return fail(file, doc, [{ path, message: `expected ${type.nameField}, found ${shown(name ?? 'none')}` }]);
  }
  return { kind: type.kind, name, json: resource, line: doc.line(path) };
}
