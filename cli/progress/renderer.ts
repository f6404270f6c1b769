/** What every way of showing progress can do. */
import type { ProgressEvent } from '../../migrate/progress.js';
import type { MigrationReport } from '../../migrate/report.js';
import { clean, duration } from '../render/format.js';
import type { Style } from '../render/style.js';

export const progressKinds = ['auto', 'tty', 'plain', 'rawjson', 'none'] as const;
export type ProgressKind = (typeof progressKinds)[number];

export interface ProgressRenderer extends Disposable {
  show(event: ProgressEvent): void;
  /** Something to say meanwhile, such as what Ctrl-C did. */
  note(line: string): void;
}

/** How a migration ended, in one line. */
export function outcomeLine(report: MigrationReport, style: Style): string {
  const { symbols } = style;
  const vm = clean(report.vm);
  switch (report.result) {
    case 'moved':
      return `${style.green(symbols.done)} ${vm} runs on ${clean(report.to)}: moved in ${duration(report.totalMs)}, downtime ${duration(report.downtimeMs)}`;
    case 'cancelled':
      return `${style.yellow(symbols.warning)} cancelled: ${vm} runs on ${clean(report.from)}, as before`;
    case 'interrupted':
      return `${style.yellow(symbols.warning)} interrupted: ${vm} runs on ${clean(report.to)} and still needs memory from ${clean(report.from)}${reason(report)}`;
    case 'unknown':
      if (report.error?.code === 'VMMIG_GUEST_ENDED')
        return `${style.red(symbols.failed)} ${vm} runs nowhere${reason(report)}`;
      return `${style.red(symbols.failed)} unknown where ${vm} runs: the source on ${clean(report.from)} is kept paused${reason(report)}`;
    case 'refused':
      return `${style.red(symbols.failed)} refused: nothing was changed${reason(report)}`;
    case 'failed':
      return `${style.red(symbols.failed)} failed: ${vm} runs on ${clean(report.from)}, as before${reason(report)}`;
  }
}

function reason(report: MigrationReport): string {
  return report.error === null ? '' : ` (${report.error.code}: ${clean(report.error.message)})`;
}
