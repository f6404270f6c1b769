/** Past migrations as a table. */
import type { MigrationReport, MigrationResult } from '../../migrate/report.js';
import { clean, duration, wireBytes } from './format.js';
import type { Page, Paint } from './style.js';
import { table } from './table.js';

export function historyLines(reports: readonly MigrationReport[], page: Page): string[] {
  const { style } = page;
  const paints: Record<MigrationResult, Paint> = {
    moved: style.green,
    failed: style.red,
    cancelled: style.yellow,
    refused: style.red,
    interrupted: style.yellow,
    unknown: style.red,
  };
  const rows = reports.map((report) => [
    localTime(report.startedAt),
    clean(report.vm),
    `${clean(report.from)} ${style.symbols.arrow} ${clean(report.to)}`,
    paints[report.result](report.result),
    duration(report.totalMs),
    report.result === 'moved' ? duration(report.downtimeMs) : '',
    report.bytes.wire > 0 ? wireBytes(report.bytes.wire) : '',
    report.id,
    report.error?.code ?? '',
  ]);
  const columns = [
    { title: 'started' },
    { title: 'guest' },
    { title: 'route' },
    { title: 'result' },
    { title: 'total', align: 'right' },
    { title: 'downtime', align: 'right' },
    { title: 'wire', align: 'right' },
    { title: 'id' },
    { title: 'error' },
  ] as const;
  return table(columns, rows, page);
}

/** `2026-11-22 04:51:07`, in the time of whoever reads it. */
function localTime(iso: string): string {
  const at = new Date(iso);
  return Number.isNaN(at.getTime()) ? clean(iso) : at.toLocaleString('sv-SE');
}
