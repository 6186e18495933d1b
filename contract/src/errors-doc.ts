import { CATALOGUE, type ErrorSpec } from './errors.ts';

/** docs/errors.md, made from the catalogue: `node contract/scripts/docs.ts` writes it, a test compares it. */
export function errorsDoc(): string {
  const rows = Object.entries(CATALOGUE).map(([code, spec]: [string, ErrorSpec]) => {
    return `| \`SLUICE_${code}\` | ${spec.exit} | ${cell(spec.summary)} | ${cell(spec.hint)} |`;
  });
  return [
    '# Errors',
    '',
    'Every error of Sluice has one of these codes, in the API, in the log and on the command line. Its message says what was',
    'expected and what was found; the hint here is the general one, and an error may carry a better one of its own. The codes',
    'are stable. The exit code is that of the command that fails with it.',
    '',
    'Made from `contract/src/errors.ts`; change it there.',
    '',
    '| code | exit | meaning | what to do |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|');
}
