/** Progress for a log: each phase as it begins and ends, and one line per second while pages move. */
import type { ProgressEvent, PullProgress, SampleEvent, StartEvent } from '../../migrate/progress.js';
import type { Sink } from '../output.js';
import { waits } from '../render/faults.js';
import { clean, clock, count, duration, eta, memory, pageBytes, percent, rate, wireBytes } from '../render/format.js';
import { whereText } from './frame.js';
import type { ProgressRenderer } from './renderer.js';
import { advance, initialState, type ProgressState } from './state.js';

const intervalMs = 1000;

/** Nothing, where the guest cannot be where it is expected. */
const fromText = ({ from, to }: StartEvent) => (from === to ? '' : ` from ${clean(from)}`);

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
        return this.note(`${clean(event.vm)}: ${event.mode}${fromText(event)} to ${clean(event.to)} (${event.id})`);
      case 'located':
        return this.#at(event.atMs, `found on ${clean(event.from)}`);
      case 'phase':
        return this.#at(event.atMs, this.#phaseText(event));
      case 'notice':
        return this.#at(event.atMs, `${event.severity === 'warn' ? 'warning' : 'note'}: ${clean(event.message)}`);
      case 'sample':
        if (event.atMs - this.#lastSampleMs < intervalMs) return;
        this.#lastSampleMs = event.atMs;
        return this.#at(event.atMs, this.#sampleText(event));
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

  #sampleText(sample: SampleEvent): string {
    const { start } = this.#state;
    return sample.pull === undefined || start === null ? sampleText(sample) : pullText(start, sample, sample.pull);
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

function pullText(start: StartEvent, sample: SampleEvent, pull: PullProgress): string {
  const { faults } = pull;
  const link = pull.isConnected ? '' : '; the link is lost, connecting again';
  const waiting = faults === null || faults.waiting === 0 ? '' : `, waiting for ${count(faults.waiting)}`;
  const wait =
    faults === null || faults.count === 0
      ? ''
      : `; faults ${count(faults.perSecond)} a second: ${waits(faults)}${waiting}`;
  const left = sample.etaMs === null ? '' : `; ETA ${eta(sample.etaMs)}`;
  return `pull: ${clean(start.vm)} ${whereText(start, pull)}${link}${wait}; wire ${wireBytes(sample.bytes.wire)} at ${rate(sample.wireBps)}${left}`;
}
