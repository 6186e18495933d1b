/**
 * Envoy's .proto files -> src/generated/: protobufjs static code (envoy.js) with its types, and the resolved schema
 * (schema.js) by which resource files are checked and mapped. Reading the .proto files takes seconds, so it happens
 * here and not when the server starts. Does nothing when its inputs have not changed.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import protobuf from 'protobufjs';
import pbjs from 'protobufjs-cli/pbjs.js';
import pbts from 'protobufjs-cli/pbts.js';
import { ROOTS } from './proto-roots.ts';
import { reach, schemaOf, subset } from './schema.ts';

const require = createRequire(import.meta.url);
const here = import.meta.dirname;
const out = join(here, '../src/generated');

/** The folders a .proto import is looked up in; protobufjs brings google/protobuf/*.proto itself. */
function includeDirs(): string[] {
  const xds = join(dirname(require.resolve('@grpc/grpc-js-xds/package.json')), 'deps');
  return [
    ...['envoy-api', 'xds', 'googleapis', 'protoc-gen-validate'].map((name) => join(xds, name)),
    dirname(require.resolve('protobufjs/package.json')),
  ];
}

function stamp(): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(here).sort()) hash.update(readFileSync(join(here, name)));
  for (const name of ['@grpc/grpc-js-xds', 'protobufjs', 'protobufjs-cli']) {
    hash.update(readFileSync(require.resolve(`${name}/package.json`)));
  }
  return hash.digest('hex');
}

function load(): protobuf.Root {
  const dirs = includeDirs();
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) => {
    const found = dirs.map((dir) => join(dir, target)).find((path) => existsSync(path));
    // Not in a folder: one of the google/protobuf files that protobufjs knows by name.
    return found ?? target;
  };
  root.loadSync(Object.keys(ROOTS), { keepCase: true });
  root.resolveAll();
  return root;
}

function run(main: (args: string[], done: (error: Error | null, output?: string) => void) => unknown, args: string[]) {
  return new Promise<string>((resolve, reject) =>
    main(args, (error, output) => (error ? reject(error) : resolve(output ?? ''))),
  );
}

async function generate(): Promise<void> {
  const mark = join(out, 'stamp');
  const wanted = stamp();
  if (existsSync(mark) && readFileSync(mark, 'utf8') === wanted) return;
  mkdirSync(out, { recursive: true });

  const root = load();
  const types = reach(root, Object.values(ROOTS).flat());
  const small = join(out, 'envoy.json');
  writeFileSync(small, JSON.stringify(subset(types)));

  const flags = '--keep-case --no-create --no-verify --no-convert --no-delimited --no-typeurl --no-service'.split(' ');
  const target = ['-t', 'static-module', '-w', 'esm', ...flags];
  // pbts reads the types from the comments, which are half of the file: code without them is what gets loaded.
  const commented = join(out, 'commented.js');
  await run(pbjs.main, [...target, '-o', commented, small]);
  await run(pbts.main, ['--no-comments', '-o', join(out, 'envoy.d.ts'), commented]);
  await run(pbjs.main, [...target, '--no-comments', '-o', join(out, 'envoy.js'), small]);
  rmSync(commented);
  rmSync(small);

  writeFileSync(join(out, 'schema.js'), `export const schema = ${JSON.stringify(schemaOf(types))};\n`);
  writeFileSync(
    join(out, 'schema.d.ts'),
    "import type { Schema } from '../resources/schema.js';\nexport declare const schema: Schema;\n",
  );
  writeFileSync(mark, wanted);
  console.log(`generated ${types.messages.size} messages and ${types.enums.size} enums`);
}

await generate();
