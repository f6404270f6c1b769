/** A stream's summary for people: aligned tables, plain text, no colour. */
import { PAGE_BYTES } from './constants.js';
import type { StreamSummary } from './summary.js';

type Row = readonly string[];

/** Several lines, the last one ended, too. */
export function formatSummary(summary: StreamSummary): string {
  const parts = [overview(summary), blocks(summary), commands(summary), devices(summary)];
  return `${parts.filter((part) => part !== '').join('\n\n')}\n`;
}

function overview(summary: StreamSummary): string {
  const { configuration, ramSections, tail, problem } = summary;
  const rows: Row[] = [['stream', bytes(summary.lengthBytes)]];
  if (configuration !== null) {
    rows.push(['machine', printable(configuration.machine)]);
    if (configuration.capabilities !== null) {
      rows.push(['capabilities', configuration.capabilities.map(printable).join(', ') || 'none']);
    }
  }
  const counts = Object.entries(ramSections).filter(([, count]) => count > 0);
  rows.push(['RAM sections', counts.map(([type, count]) => `${count} ${type}`).join(', ') || 'none']);
  if (summary.multifdFlushes > 0) rows.push(['multifd', `${summary.multifdFlushes} flushes; pages travel elsewhere`]);
  if (tail !== null) {
    const what = tail.reason === 'device-state' ? 'device state' : 'opaque';
    rows.push([what, `${bytes(tail.lengthBytes)}, from section ${printable(tail.firstSection)}`]);
  }
  if (problem !== null) rows.push(['problem', `${problem.code}: ${printable(problem.message)}`]);
  return table(rows, 'll');
}

function blocks(summary: StreamSummary): string {
  if (summary.blocks.length === 0) return '';
  const rows: Row[] = [['RAM block', 'bytes', 'pages', 'sent', 'zero', 'distinct', 'page size', 'address']];
  for (const block of summary.blocks) {
    rows.push([
      printable(block.name),
      number(block.lengthBytes),
      number(block.lengthBytes / PAGE_BYTES),
      number(block.pageRecords),
      number(block.zeroRecords),
      number(block.uniquePages),
      block.pageSizeBytes === null ? '-' : number(block.pageSizeBytes),
      block.gpa === null ? '-' : `0x${block.gpa.toString(16)}`,
    ]);
  }
  const { ramBytes, pageRecords, zeroRecords, uniquePages } = summary.totals;
  const totals = [ramBytes, ramBytes / PAGE_BYTES, pageRecords, zeroRecords, uniquePages].map(number);
  rows.push(['total', ...totals, '', '']);
  return table(rows, 'lrrrrrrr');
}

function commands(summary: StreamSummary): string {
  if (summary.commands.length === 0) return '';
  const rows = summary.commands.map(({ name, count, dataBytes }) => [name, number(count), number(dataBytes)]);
  return table([['command', 'count', 'bytes'], ...rows], 'lrr');
}

function devices(summary: StreamSummary): string {
  if (summary.devices === null) return '';
  const rows = summary.devices.map(({ name, instance, version, lengthBytes }) => [
    printable(name),
    number(instance),
    version === null ? '-' : number(version),
    number(lengthBytes),
  ]);
  return table([['device', 'instance', 'version', 'bytes'], ...rows], 'lrrr');
}

/** @param alignment a letter per column: `l`eft or `r`ight */
function table(rows: readonly Row[], alignment: string): string {
  const widths = [...alignment].map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row.map((cell, column) =>
      alignment[column] === 'r' ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
    ),
  );
  return lines.map((cells) => cells.join('  ').trimEnd()).join('\n');
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function bytes(value: number): string {
  return `${number(value)} bytes`;
}

/** Names come from the stream: nothing in them may reach the terminal but text. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?');
}
