/** Progress for programs: every event as one line of JSON, and nothing else on the stream. */
import type { ProgressEvent } from '../../migrate/progress.js';
import type { Sink } from '../output.js';
import type { ProgressRenderer } from './renderer.js';

export class RawJsonProgress implements ProgressRenderer {
  constructor(private readonly sink: Sink) {}

  show(event: ProgressEvent): void {
    this.sink.lines([JSON.stringify(event)]);
  }

  /** Words for people have no place between events. */
  note(): void {}

  [Symbol.dispose](): void {}
}
