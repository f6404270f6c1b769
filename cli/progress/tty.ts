/** Progress for a person at a terminal: a picture redrawn in place, at most ten times a second. */
import type { ProgressEvent } from '../../migrate/progress.js';
import type { Sink } from '../output.js';
import { clean } from '../render/format.js';
import { frame } from './frame.js';
import { LiveRegion } from './liveRegion.js';
import type { ProgressRenderer } from './renderer.js';
import { advance, initialState, type ProgressState } from './state.js';

const redrawMs = 100;

export class TtyProgress implements ProgressRenderer {
  #state: ProgressState = initialState;
  #changed = true;
  #drawnSecond = -1;
  readonly #beganAt = performance.now();
  readonly #region: LiveRegion;
  readonly #timer: NodeJS.Timeout;

  constructor(private readonly sink: Sink) {
    this.#region = new LiveRegion(sink);
    this.#timer = setInterval(() => this.#tick(), redrawMs);
    this.#timer.unref();
    this.#draw();
  }

  show(event: ProgressEvent): void {
    this.#state = advance(this.#state, event);
    this.#changed = true;
    if (event.type === 'notice' && event.severity === 'warn') {
      this.note(`${this.sink.style.yellow(this.sink.style.symbols.warning)} ${clean(event.message)}`);
    }
    if (event.type === 'end') this[Symbol.dispose]();
  }

  note(line: string): void {
    this.#region.clear();
    this.sink.lines([line]);
    if (this.#state.report === null) this.#draw();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#region.clear();
  }

  /** Also when nothing changed: the clock shows that vmmig is alive. */
  #tick(): void {
    if (this.#changed || Math.floor(this.#elapsedMs() / 1000) !== this.#drawnSecond) this.#draw();
  }

  #draw(): void {
    const elapsedMs = this.#elapsedMs();
    const { columns, rows, style } = this.sink;
    this.#region.draw(frame(this.#state, elapsedMs, { columns, rows }, style));
    this.#changed = false;
    this.#drawnSecond = Math.floor(elapsedMs / 1000);
  }

  #elapsedMs(): number {
    return performance.now() - this.#beganAt;
  }
}
