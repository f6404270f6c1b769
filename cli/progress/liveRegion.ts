/** Lines at the bottom of a terminal that are redrawn in place. Plain ANSI: cursor up, erase to end of line and of screen. */
import type { Sink } from '../output.js';
import { displayWidth } from '../render/style.js';

/** Terminals that know synchronised output show a frame whole; the others ignore the request. */
const beginFrame = '\x1b[?2026h';
const endFrame = '\x1b[?2026l';
const eraseLine = '\x1b[K';
const eraseBelow = '\x1b[J';

export class LiveRegion {
  #drawnWidths: readonly number[] = [];

  constructor(readonly sink: Sink) {}

  draw(lines: readonly string[]): void {
    const body = lines.map((line) => `${line}${eraseLine}\n`).join('');
    this.sink.write(`${beginFrame}${this.#home()}${body}${eraseBelow}${endFrame}`);
    this.#drawnWidths = lines.map(displayWidth);
  }

  /** Takes the lines off the screen; what is written next starts where they were. */
  clear(): void {
    if (this.#drawnWidths.length === 0) return;
    this.sink.write(`${this.#home()}${eraseBelow}`);
    this.#drawnWidths = [];
  }

  /** To the first row drawn. A terminal made narrower since has wrapped the lines over more rows. */
  #home(): string {
    const columns = Math.max(1, this.sink.columns);
    const rows = this.#drawnWidths.reduce((sum, width) => sum + Math.max(1, Math.ceil(width / columns)), 0);
    return rows === 0 ? '' : `\r\x1b[${rows}A`;
  }
}
