/** Progress for a log: each phase as it begins and ends, and one line per second while pages move. */
import type { ProgressEvent, SampleEvent } from '../../migrate/progress.js';
import type { Sink } from '../output.js';
import { clean, clock, duration, eta, memory, pageBytes, percent, rate, wireBytes } from '../render/format.js';
import type { ProgressRenderer } from './renderer.js';
import { advance, initialState, type ProgressState } from './state.js';

const intervalMs = 1000;

export class PlainProgress implements ProgressRenderer {
  #state: ProgressState = initialState;
  #lastSampleMs = Number.NEGATIVE_INFINITY;

  constructor(private readonly sink: Sink) {
    this.#at(0, 'starting ...');
  }

  show(event: ProgressEvent): void {
    this.#state = advance(this.#state, event);
    switch (event.type) {
      case 'start':
        return this.note(
          `${clean(event.vm)}: ${event.mode} from ${clean(event.from)} to ${clean(event.to)} (${event.id})`,
        );
      case 'phase':
        return this.#at(event.atMs, this.#phaseText(event));
      case 'notice':
        return this.#at(event.atMs, `${event.severity === 'warn' ? 'warning' : 'note'}: ${clean(event.message)}`);
      case 'sample':
        if (event.atMs - this.#lastSampleMs < intervalMs) return;
        this.#lastSampleMs = event.atMs;
        return this.#at(event.atMs, sampleText(event));
      case 'end':
        return;
    }
  }

  note(line: string): void {
    this.sink.lines([line]);
  }

  [Symbol.dispose](): void {}

  #at(atMs: number, text: string): void {
    this.note(`${clock(atMs).padStart(5)} ${text}`);
  }

  #phaseText(event: Extract<ProgressEvent, { type: 'phase' }>): string {
    const detail = event.detail === undefined ? '' : `: ${clean(event.detail)}`;
    if (event.state === 'begin') return `${event.name}${detail || ' ...'}`;
    const phase = this.#state.phases.findLast((candidate) => candidate.name === event.name);
    return `${event.name} took ${duration(event.atMs - (phase?.beganMs ?? event.atMs))}${detail}`;
  }
}

function sampleText(sample: SampleEvent): string {
  const { pages } = sample;
  const handled = pages.zero + pages.teleported + pages.sent;
  const amounts = (['zero', 'teleported', 'sent', 'restored'] as const)
    .map((kind) => `${kind} ${memory(pages[kind] * pageBytes)}`)
    .join(', ');
  const dirty = sample.dirtyBytesPerSecond === null ? '' : `; dirty ${memory(sample.dirtyBytesPerSecond)}/s`;
  const left = sample.etaMs === null ? '' : `; ETA ${eta(sample.etaMs)}`;
  return (
    `${sample.phase} ${percent(handled, Math.max(sample.totalPages, handled))}: ${amounts}; ` +
    `wire ${wireBytes(sample.bytes.wire)} at ${rate(sample.wireBps)}${dirty}${left}`
  );
}
