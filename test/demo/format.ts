/** Small pure helpers of the view and the report. */

export const number = (value: number): string => value.toLocaleString('en-US');

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000
    ? `${(ms / 1000).toFixed(1)} s`
    : `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

export const pad = (text: string, width: number): string => text.padEnd(width);
export const right = (text: string, width: number): string => text.padStart(width);

/** `part` of `whole` as a bar of `width` cells. */
export function bar(part: number, whole: number, width: number): string {
  const cells = whole <= 0 ? 0 : Math.round((Math.min(part, whole) / whole) * width);
  return '█'.repeat(cells) + '·'.repeat(width - cells);
}

export interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
  readonly accent: (text: string) => string;
}

/** ANSI colours, or none. */
export function paint(colours: boolean): Paint {
  const wrap = (code: number) => (text: string) => (colours ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { bold: wrap(1), dim: wrap(2), good: wrap(32), bad: wrap(31), accent: wrap(36) };
}

/** Cut to `width` visible characters; colour codes do not count, and are all kept. */
export function fit(line: string, width: number): string {
  let visible = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what is looked for
  return line.replace(/\x1b\[\d+m|./gu, (part) => (part.startsWith('\x1b') || visible++ < width ? part : ''));
}
