/** Migrations that go on, each as a paragraph. */
import type { MigrationStatus, StatusReport } from '../../migrate/index.js';
import { answerRows, waits } from './faults.js';
import { clean, clock, count, duration, memory } from './format.js';
import { type Page, padEnd } from './style.js';
import { wrap } from './table.js';

const nameWidth = 10;

/** @param vm - whom was asked about; undefined for all */
export function statusLines(report: StatusReport, vm: string | undefined, nowMs: number, page: Page): string[] {
  const { style, textWidth } = page;
  const silent = report.silent.flatMap(({ host, reason }) =>
    wrap(`${style.yellow(style.symbols.warning)} ${clean(host)} could not be asked: ${clean(reason)}`, textWidth),
  );
  const paragraphs = report.migrations.map((migration) => migrationLines(migration, nowMs, page));
  if (paragraphs.length === 0) {
    const what = vm === undefined ? 'No guest is being moved' : `${clean(vm)} is not being moved`;
    paragraphs.push([`${what}${silent.length === 0 ? '' : ', as far as the hosts below do not know better'}.`]);
  }
  if (silent.length > 0) paragraphs.push(silent);
  return paragraphs.flatMap((lines, index) => (index === 0 ? lines : ['', ...lines]));
}

function migrationLines(migration: MigrationStatus, nowMs: number, page: Page): string[] {
  const { style, textWidth } = page;
  const { symbols } = style;
  const { from, to, vm, mode, phase, beganAt } = migration;
  const since = (iso: string) => clock(Math.max(0, nowMs - Date.parse(iso)));
  const rows: [string, string][] = [['guest', whereText(migration, since)]];
  const { faults, link, store, pid } = migration;
  if (faults !== null) {
    const waiting = faults.waiting > 0 ? `; waiting for ${count(faults.waiting)} now` : '';
    const all = faults.count > 0 ? `, ${count(faults.count)} so far: ${waits(faults)}` : '';
    rows.push(['faults', `${count(faults.perSecond)} a second${all}${waiting}`]);
    for (const [from, text] of answerRows(faults)) rows.push([`  ${from}`, text]);
  }
  if (link !== null) rows.push(['link', linkText(link, since, style.yellow)]);
  if (store !== null) {
    const spilled = store.spilledBytes > 0 ? `, ${memory(store.spilledBytes)} in a file` : '';
    rows.push(['kept', `${memory(store.memoryBytes)} of memory on ${clean(from ?? 'the source')}${spilled}`]);
  }
  rows.push(['command', pid === null ? 'none on this machine' : `process ${pid} on this machine`]);
  const title = `${style.bold(clean(vm))}  ${clean(from ?? '?')} ${symbols.arrow} ${clean(to)}`;
  const state = [mode, phase ?? 'beginning', ...(beganAt === null ? [] : [`for ${since(beganAt)}`])];
  return [
    `${title}  ${style.cyan(state.join(` ${symbols.separator} `))}`,
    ...rows.flatMap(([name, text]) => {
      const [first = '', ...more] = wrap(text, textWidth, nameWidth + 2);
      return [`  ${padEnd(name, nameWidth)}${first.trimStart()}`, ...more];
    }),
    ...migration.problems.flatMap((problem) => {
      const [first = '', ...more] = wrap(clean(problem), textWidth, 4);
      return [`  ${style.red(symbols.failed)} ${first.trimStart()}`, ...more];
    }),
    style.dim(`  ${migration.id}`),
  ];
}

function whereText(migration: MigrationStatus, since: (iso: string) => string): string {
  const { vmLocation, exposedSince, remaining } = migration;
  const from = clean(migration.from ?? 'the source');
  const to = clean(migration.to);
  if (vmLocation === 'source') return `runs on ${from}`;
  if (vmLocation === 'unknown') return `is being handed over, or it is not known whether ${to} has it`;
  const running = `runs on ${to}${exposedSince === null ? '' : ` since ${since(exposedSince)}`}`;
  if (remaining === null) return `${running}; what it still needs from ${from} is not known`;
  const missing = `${count(remaining.missingPages)} ${remaining.missingPages === 1 ? 'page is' : 'pages are'} not there yet`;
  return `${running}, still needs ${memory(remaining.bytes)} from ${from}; ${missing}`;
}

function linkText(
  { isConnected, interruptedSince, rttMs, reconnects }: NonNullable<MigrationStatus['link']>,
  since: (iso: string) => string,
  paint: (text: string) => string,
): string {
  const again = reconnects === 0 ? '' : `, connected again ${reconnects === 1 ? 'once' : `${count(reconnects)} times`}`;
  if (isConnected) return `connected, round trip ${duration(rttMs)}${again}`;
  const lost = interruptedSince === null ? 'not connected' : `lost for ${since(interruptedSince)}, connecting again`;
  return `${paint(lost)}${again}`;
}
