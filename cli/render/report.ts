/** The report of a migration for people: where the guest is, how long it took, and why it was as fast as it was. */
import { explainError } from '../../migrate/errorCodes.js';
import type { Finding, MigrationReport, ReportError } from '../../migrate/report.js';
import { outcomeLine } from '../progress/renderer.js';
import { answerRows, waits } from './faults.js';
import { clean, count, duration, memory, pageBytes, percent, wireBytes } from './format.js';
import { type Page, padEnd } from './style.js';
import { table, wrap } from './table.js';

export function reportLines(report: MigrationReport, page: Page): string[] {
  const sections = [
    headline(report, page),
    errorLines(report.error, page),
    timeLines(report, page),
    memoryLines(report, page),
    phaseLines(report, page),
    factLines(report, page),
    findingLines(report.findings, page),
    [page.style.dim(`${report.id}  started ${report.startedAt}`)],
  ];
  return sections
    .filter((section) => section.length > 0)
    .flatMap((section, index) => (index === 0 ? section : ['', ...section]));
}

function headline(report: MigrationReport, { style, textWidth }: Page): string[] {
  // The error has a section of its own here.
  const line = outcomeLine({ ...report, error: null }, style);
  return wrap(report.result === 'moved' ? style.bold(line) : line, textWidth);
}

export function errorLines(error: ReportError | null, page: Page): string[] {
  const { style, textWidth } = page;
  if (error === null) return [];
  const during = error.phase === null ? '' : style.dim(` during ${error.phase}`);
  const help = explainError(error.code);
  return [
    `${style.red(error.code)}${during}`,
    ...wrap(clean(error.message), textWidth, 2),
    ...(help === null ? [] : wrap(`What to do: ${help.nextStep}`, textWidth, 2)),
    ...(error.retryable ? ['  Trying again may help.'] : []),
  ];
}

function timeLines(report: MigrationReport, page: Page): string[] {
  const { style } = page;
  if (report.totalMs === 0) return [];
  const figures: [string, string, string][] = [['total', duration(report.totalMs), '']];
  if (report.result === 'moved' || report.result === 'interrupted') {
    figures.push(
      ['downtime', duration(report.downtimeMs), 'the guest stood still'],
      ['switched over', duration(report.switchoverMs), `after the start it ran on ${clean(report.to)}`],
    );
    if (report.releasedMs > 0)
      figures.push([
        'released',
        duration(report.releasedMs),
        `after the start ${clean(report.from)} held nothing of it`,
      ]);
    if (report.exposureMs !== null)
      figures.push(['exposed', duration(report.exposureMs), `it needed ${clean(report.from)} as well`]);
  }
  const rows = figures.map(([name, value, meaning]) => [`  ${name}`, style.bold(value), style.dim(meaning)]);
  return table([{ title: '' }, { title: '', align: 'right' }, { title: '' }], rows, page);
}

/** What was not sent, and why. */
function memoryLines(report: MigrationReport, page: Page): string[] {
  const { style, textWidth } = page;
  const { pages, bytes } = report;
  const handled = pages.zero + pages.teleported + pages.sent;
  if (handled === 0) return [];
  const row = (name: string, value: number, how: string): string[] => [
    `  ${name}`,
    count(value),
    memory(value * pageBytes),
    percent(value, handled),
    style.dim(how),
  ];
  const rows = [
    row('zero', pages.zero, 'not sent: only where they are'),
    row('teleported', pages.teleported, `not sent: read from the disk on ${clean(report.to)}`),
    row('sent', pages.sent, 'as bytes, compressed where that helps'),
    ...(pages.faulted > 0 ? [row('faulted', pages.faulted, 'asked for by the running guest')] : []),
    ...(pages.mismatched > 0 ? [row('mismatched', pages.mismatched, 'the disk had other bytes: sent after all')] : []),
  ];
  const columns = [
    { title: '  memory' },
    { title: 'pages', align: 'right' },
    { title: 'bytes', align: 'right' },
    { title: 'share', align: 'right' },
    { title: '' },
  ] as const;
  return [
    ...table(columns, rows, page),
    '',
    ...wrap(
      `${style.bold(wireBytes(bytes.wire))} crossed the network for ${wireBytes(handled * pageBytes)} of memory ` +
        `(${percent(bytes.wire, handled * pageBytes)}); QEMU wrote ${wireBytes(bytes.stream)}, ` +
        `and ${memory(bytes.restored)} were read from the disk`,
      textWidth,
      2,
    ),
  ];
}

const phaseBarCells = 30;

/** When each phase ran, drawn to scale. */
function phaseLines(report: MigrationReport, page: Page): string[] {
  const { style } = page;
  if (report.phases.length === 0) return [];
  const endMs = Math.max(...report.phases.map((phase) => phase.startMs + phase.ms), 1);
  const rows = report.phases.map((phase) => {
    const from = Math.min(phaseBarCells - 1, Math.floor((phase.startMs / endMs) * phaseBarCells));
    const cells = Math.max(1, Math.min(phaseBarCells - from, Math.round((phase.ms / endMs) * phaseBarCells)));
    const bar = ' '.repeat(from) + style.cyan(style.symbols.bar.teleported.repeat(cells));
    return [`  ${phase.name}`, duration(phase.ms), bar];
  });
  return table([{ title: '  phase' }, { title: 'took', align: 'right' }, { title: '' }], rows, page);
}

function factLines(report: MigrationReport, page: Page): string[] {
  const { style, textWidth } = page;
  const { link, agent } = report;
  const facts: [string, string][] = [];
  if (report.verified === true) facts.push(['verified', 'the digests of all pages agree on both sides']);
  if (report.verified === false) facts.push(['verified', style.red('no: the digests of the two sides differ')]);
  if (link.connections > 0) {
    const reconnects = link.reconnects > 0 ? `, ${count(link.reconnects)} reconnects` : '';
    facts.push(['link', `${count(link.connections)} connections, round trip ${duration(link.rttMs)}${reconnects}`]);
  }
  const { faults } = report;
  if (faults !== null && faults.count > 0) {
    facts.push(['faults', `${count(faults.count)} waits for memory: ${waits(faults)}`]);
    for (const [from, text] of answerRows(faults)) facts.push([`  ${from}`, text]);
  }
  if (report.recoveredAt !== null) facts.push(['recovered', `brought to its end at ${clean(report.recoveredAt)}`]);
  if (agent !== null) facts.push(['agent', agentText(agent)]);
  else if (report.pages.seen > 0) facts.push(['agent', 'none answered: no page cache could be teleported']);
  if (report.opaqueSections.length > 0) facts.push(['passed on', report.opaqueSections.map(clean).join(', ')]);
  return facts.flatMap(([name, text]) => {
    const [first = '', ...more] = wrap(text, textWidth, 12);
    return [`  ${padEnd(name, 10)}${first.trimStart()}`, ...more];
  });
}

function agentText(agent: NonNullable<MigrationReport['agent']>): string {
  const scans = agent.scans === 1 ? 'one scan' : `${count(agent.scans)} scans`;
  const skipped = skippedText(agent.skipped);
  const via = agent.via === 'qemu-ga' ? ', through qemu-guest-agent' : '';
  return `${count(agent.pages)} cached pages found in ${duration(agent.scanMs)} (${scans}${via})${skipped === '' ? '' : `; skipped: ${skipped}`}`;
}

/** `dirty 120, deleted 3`: most first. */
export function skippedText(skipped: Readonly<Record<string, number>>): string {
  return Object.entries(skipped)
    .filter(([, pages]) => pages > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([why, pages]) => `${clean(why)} ${count(pages)}`)
    .join(', ');
}

export function findingLines(findings: readonly Finding[], page: Page): string[] {
  const { style, textWidth } = page;
  return findings.flatMap((finding) => {
    const mark = finding.severity === 'refuse' ? style.red(style.symbols.failed) : style.yellow(style.symbols.warning);
    const [first = '', ...more] = wrap(clean(finding.message), textWidth, 4);
    return [
      `  ${mark} ${first.trimStart()}`,
      ...more,
      ...wrap(`${style.symbols.arrow} ${clean(finding.remedy)}`, textWidth, 4),
      style.dim(`    ${finding.code}`),
    ];
  });
}
