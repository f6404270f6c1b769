/**
 * One picture of a running migration, as lines that fit the terminal:
 *
 *     vm1  hostA → hostB                                       0:03
 *     ✔ preflight  ✔ prepare destination  ● precopy  ○ switch-over  …
 *     memory    ████████▓▓▓▓░░░░░──────  62 %  642 MiB of 1.00 GiB
 *     restored  ███████────────────────  55 %  221 MiB of 402 MiB
 *     █ teleported 402 MiB  ▓ sent 44.1 MiB  ░ zero 196 MiB
 *     wire 41.2 MB at 198 Mbit/s · dirty 2.10 MiB/s · left 210 MiB · ETA 4 s
 *
 * and, while the memory of a switch is being pulled,
 *
 *     runs on hostB since 0:03, still needs 123 MiB from hostA
 *     there     ████████████████───────  69 %  724 MiB of 1.00 GiB
 *     faults 212 a second · p50 41 ms, p90 44 ms, p99 80 ms, longest 120 ms · waiting for 2
 *     wire 41.2 MB at 198 Mbit/s · ETA 4 s
 */
import type { PullProgress, SampleEvent, StartEvent } from '../../migrate/progress.js';
import { phasesOf } from '../../migrate/report.js';
import { waits } from '../render/faults.js';
import { clean, clock, count, eta, memory, pageBytes, percent, rate, wireBytes } from '../render/format.js';
import { displayWidth, type Paint, padEnd, type Style, truncate } from '../render/style.js';
import { currentPhase, type ProgressState } from './state.js';

export interface FrameSize {
  readonly columns: number;
  readonly rows: number;
}

const labelWidth = 10;
const widestBar = 48;
const widestFrame = 120;

export function frame(state: ProgressState, elapsedMs: number, size: FrameSize, style: Style): string[] {
  // A full last column makes some terminals wrap; one is left free.
  const width = Math.min(size.columns - 1, widestFrame);
  const lines = [headLine(state, elapsedMs, width, style), ...phaseLines(state, width, style)];
  const { sample } = state;
  if (sample?.pull !== undefined) lines.push(...pullLines(state, sample, sample.pull, width, style));
  else if (sample !== null) lines.push(...sampleLines(sample, width, style));
  const info = state.notices.findLast((notice) => notice.severity === 'info');
  if (info !== undefined) lines.push(style.dim(clean(info.message)));
  return lines
    .slice(0, Math.max(1, size.rows - 1))
    .map((line) => truncate(line, Math.max(1, width), style.symbols.ellipsis));
}

function headLine(state: ProgressState, elapsedMs: number, width: number, style: Style): string {
  const { start } = state;
  const route =
    start === null
      ? style.bold('vmmig')
      : `${style.bold(clean(start.vm))}  ${start.from === start.to ? '' : `${clean(start.from)} `}${style.symbols.arrow} ${clean(start.to)}`;
  const time = style.dim(clock(elapsedMs));
  const gap = width - displayWidth(route) - displayWidth(time);
  return gap >= 2 ? route + ' '.repeat(gap) + time : `${time}  ${route}`;
}

/** The whole list where it fits, else the phase that runs and how far along it is. */
function phaseLines(state: ProgressState, width: number, style: Style): string[] {
  const { symbols } = style;
  const names = phasesOf(state.start?.mode ?? 'teleport');
  const marks = names.map((name) => {
    const phase = state.phases.findLast((candidate) => candidate.name === name);
    if (phase === undefined) return style.dim(`${symbols.waiting} ${name}`);
    if (phase.endedMs !== null) return `${style.green(symbols.done)} ${name}`;
    return style.bold(`${style.cyan(symbols.running)} ${name}`);
  });
  const whole = marks.join('  ');
  const current = currentPhase(state);
  const detail = current?.detail ? [style.dim(clean(current.detail))] : [];
  if (displayWidth(whole) <= width) return [whole, ...detail];
  if (current === null) return [];
  const position = `${names.indexOf(current.name) + 1} of ${names.length}`;
  return [`${style.cyan(symbols.running)} ${style.bold(current.name)} ${style.dim(`(phase ${position})`)}`, ...detail];
}

function sampleLines(sample: SampleEvent, width: number, style: Style): string[] {
  const { bar } = style.symbols;
  const { pages } = sample;
  const handled = pages.zero + pages.teleported + pages.sent;
  // Pages that the guest writes again are handled again: the whole grows with them.
  const whole = Math.max(sample.totalPages, handled, 1);
  const teleported: Segment = { value: pages.teleported, glyph: bar.teleported, paint: style.green };
  const sent: Segment = { value: pages.sent, glyph: bar.sent, paint: style.yellow };
  const zero: Segment = { value: pages.zero, glyph: bar.zero, paint: style.cyan };
  const lines = [barLine('memory', [teleported, sent, zero], handled, whole, width, style)];
  if (pages.teleported > 0) {
    const restored: Segment = { value: pages.restored, glyph: bar.teleported, paint: style.magenta };
    const expected = Math.max(pages.teleported, pages.restored);
    lines.push(barLine('restored', [restored], pages.restored, expected, width, style));
  }
  const legend = [
    legendItem('teleported', teleported),
    legendItem('sent', sent),
    legendItem('zero', zero),
    `${style.magenta(bar.teleported)} restored ${memory(pages.restored * pageBytes)}`,
    ...(pages.mismatched > 0 ? [style.dim(`${memory(pages.mismatched * pageBytes)} sent again`)] : []),
  ];
  lines.push(...flow(legend, '  ', width));
  lines.push(...flow(ratesOf(sample), ` ${style.dim(style.symbols.separator)} `, width));
  return lines;
}

/** The guest runs on the destination: what is there, and how long it waits for what is not. */
function pullLines(
  { start }: ProgressState,
  sample: SampleEvent,
  pull: PullProgress,
  width: number,
  style: Style,
): string[] {
  const lines: string[] = [];
  const separator = ` ${style.dim(style.symbols.separator)} `;
  if (start !== null) lines.push(whereText(start, pull));
  if (!pull.isConnected) lines.push(style.yellow('the link is lost: it waits for what is not there; connecting again'));
  const there = Math.max(0, sample.totalPages - pull.missingPages);
  const segment: Segment = { value: there, glyph: style.symbols.bar.teleported, paint: style.green };
  lines.push(barLine('there', [segment], there, Math.max(1, sample.totalPages), width, style));
  const { faults } = pull;
  if (faults !== null) {
    const all = [`faults ${count(faults.perSecond)} a second`];
    if (faults.count > 0) all.push(waits(faults));
    if (faults.waiting > 0) all.push(`waiting for ${count(faults.waiting)}`);
    lines.push(...flow(all, separator, width));
  }
  const { bytes, wireBps, etaMs } = sample;
  const rates = [`wire ${wireBytes(bytes.wire)} at ${rate(wireBps)}`];
  if (etaMs !== null) rates.push(`ETA ${eta(etaMs)}`);
  lines.push(...flow(rates, separator, width));
  return lines;
}

/** `runs on hostB since 0:03, still needs 123 MiB from hostA`. */
export function whereText({ to, from }: Pick<StartEvent, 'from' | 'to'>, pull: PullProgress): string {
  const needs =
    pull.neededBytes > 0 ? `still needs ${memory(pull.neededBytes)} from ${clean(from)}` : 'all is on its way';
  return `runs on ${clean(to)} since ${clock(pull.runningMs)}, ${needs}`;
}

function ratesOf(sample: SampleEvent): string[] {
  return [
    `wire ${wireBytes(sample.bytes.wire)} at ${rate(sample.wireBps)}`,
    ...(sample.dirtyBytesPerSecond === null ? [] : [`dirty ${memory(sample.dirtyBytesPerSecond)}/s`]),
    `left ${memory(sample.remainingBytes)}`,
    ...(sample.etaMs === null ? [] : [`ETA ${eta(sample.etaMs)}`]),
  ];
}

interface Segment {
  readonly value: number;
  readonly glyph: string;
  readonly paint: Paint;
}

function legendItem(name: string, segment: Segment): string {
  return `${segment.paint(segment.glyph)} ${name} ${memory(segment.value * pageBytes)}`;
}

function barLine(
  label: string,
  segments: readonly Segment[],
  done: number,
  whole: number,
  width: number,
  style: Style,
): string {
  const share = percent(done, whole).padStart(7);
  const amounts = `  ${memory(done * pageBytes)} of ${memory(whole * pageBytes)}`;
  const roomWithAmounts = width - labelWidth - share.length - 24;
  const room = roomWithAmounts >= 16 ? roomWithAmounts : width - labelWidth - share.length;
  const drawn = stackedBar(segments, whole, Math.max(4, Math.min(widestBar, room)), style);
  return `${padEnd(label, labelWidth)}${drawn}${share}${roomWithAmounts >= 16 ? style.dim(amounts) : ''}`;
}

/** Each segment ends where the sum of all before it says, so that rounding never adds a cell. */
export function stackedBar(segments: readonly Segment[], whole: number, cells: number, style: Style): string {
  let sum = 0;
  let filled = 0;
  let drawn = '';
  for (const segment of segments) {
    sum += segment.value;
    const end = Math.min(cells, Math.floor((sum / whole) * cells));
    drawn += segment.paint(segment.glyph.repeat(Math.max(0, end - filled)));
    filled = Math.max(filled, end);
  }
  return drawn + style.dim(style.symbols.bar.rest.repeat(cells - filled));
}

/** Items on as few lines as the width allows. */
function flow(items: readonly string[], separator: string, width: number): string[] {
  const lines: string[] = [];
  for (const item of items) {
    const last = lines.at(-1);
    if (last !== undefined && displayWidth(last) + displayWidth(separator) + displayWidth(item) <= width) {
      lines[lines.length - 1] = last + separator + item;
    } else {
      lines.push(item);
    }
  }
  return lines;
}
