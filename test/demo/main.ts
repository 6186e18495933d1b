import { writeFile } from 'node:fs/promises';
import { type SluiceError, toSluiceError } from '@sluice/contract';
import { runDemo } from './demo.ts';
import { parseOptions, USAGE } from './options.ts';
import { wellDone } from './result.ts';

/** 0: all went well; 1: something failed; else the exit code of the error. */
async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options === 'help') {
    console.log(USAGE);
    return 0;
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort(new Error('interrupted')));
  process.once('SIGTERM', () => stop.abort(new Error('interrupted')));
  const { result, complete } = await runDemo(options, process.stdout, stop.signal);
  if (options.json !== undefined) await writeFile(options.json, `${JSON.stringify(result, null, 2)}\n`);
  return complete && wellDone(result) ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2)).catch((thrown: unknown) => {
  const error: SluiceError = toSluiceError(thrown);
  console.error(`demo: ${error.message}${error.code === 'INTERNAL' ? '' : ` (${error.hint})`}`);
  return error.code === 'INTERNAL' ? 1 : error.exit;
});
