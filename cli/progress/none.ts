/** No progress; what has to be said is still said. */
import type { Sink } from '../output.js';
import type { ProgressRenderer } from './renderer.js';

export class NoProgress implements ProgressRenderer {
  constructor(private readonly sink: Sink) {}

  show(): void {}

  note(line: string): void {
    this.sink.lines([line]);
  }

  [Symbol.dispose](): void {}
}
