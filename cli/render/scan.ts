/** What a guest's agent found in its page cache. */
import type { ScanReport } from '../../migrate/index.js';
import { clean, count, duration, memory, pageBytes } from './format.js';
import { skippedText } from './report.js';
import type { Page } from './style.js';
import { table, wrap } from './table.js';

export function scanLines(scan: ScanReport, page: Page): string[] {
  const { style, textWidth } = page;
  const head =
    `${style.bold(clean(scan.vm))} on ${clean(scan.host)}: ${count(scan.pages)} cached pages (${memory(scan.pages * pageBytes)}) ` +
    `in ${count(scan.runs)} runs, found${scan.via === 'qemu-ga' ? ' through qemu-guest-agent' : ''} in ${duration(scan.scanMs)} and told in ${memory(scan.bytes)}`;
  const disks = scan.disks.map((disk) => [
    `  ${disk.index}`,
    clean(disk.name),
    clean(disk.serial),
    clean(disk.pciAddress ?? ''),
    memory(disk.sizeBytes),
    count(disk.pages),
    memory(disk.pages * pageBytes),
  ]);
  const columns = [
    { title: '  disk' },
    { title: 'in the guest' },
    { title: 'serial' },
    { title: 'PCI' },
    { title: 'size', align: 'right' },
    { title: 'pages', align: 'right' },
    { title: 'cached', align: 'right' },
  ] as const;
  const skipped = skippedText(scan.skipped);
  return [
    ...wrap(head, textWidth),
    ...(disks.length > 0 ? ['', ...table(columns, disks, page)] : []),
    ...(skipped === '' ? [] : ['', ...wrap(`Not teleportable, in pages: ${skipped}`, textWidth)]),
  ];
}
