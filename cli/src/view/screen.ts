import type { Io } from '../lib/io.ts';

const ESC = '\u001b[';

/** A block of lines that is drawn over itself on a terminal. Leaves the last state behind when the command ends. */
export class Screen {
  readonly #io: Io;
  #drawn = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  draw(lines: readonly string[]): void {
    // A terminal that does not know its size says 0.
    const columns = this.#io.out.columns || 80;
    // One row stays free: a block as high as the terminal would scroll, and could not be drawn over.
    const rows = Math.max(1, (this.#io.out.rows || 24) - 1);
    const shown =
      lines.length > rows ? [...lines.slice(0, rows - 1), `... ${lines.length - rows + 1} more lines`] : lines;
    const up = this.#drawn === 0 ? '' : `${ESC}${this.#drawn}A`;
    this.#io.out.write(`${up}${ESC}0J${shown.map((line) => `${line.slice(0, columns - 1)}\n`).join('')}`);
    this.#drawn = shown.length;
  }
}
