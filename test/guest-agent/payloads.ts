/** Writes the payloads that an agent sends, right ones and wrong ones. */

export function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}

export function zigzag(value: number): number[] {
  return varint(value < 0 ? -2 * value - 1 : 2 * value);
}

export function u64(value: number): number[] {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return [...bytes];
}

function text(value: string): number[] {
  return [value.length, ...Buffer.from(value, 'latin1')];
}

export function helloPayload(settings: { protocolVersion?: number; pageSizeBytes?: number } = {}): Buffer {
  const pageSize = Buffer.alloc(4);
  pageSize.writeUInt32LE(settings.pageSizeBytes ?? 4096);
  return Buffer.from([1, 1, settings.protocolVersion ?? 1, 1, ...pageSize, ...text('0.1.0')]);
}

export interface PlainDisk {
  name: string;
  serial: string;
  sizeBytes: number;
  pci: string;
}

export function disksPayload(disks: PlainDisk[]): Buffer {
  const each = disks.flatMap((disk) => [
    ...u64(disk.sizeBytes),
    ...text(disk.name),
    ...text(disk.serial),
    ...text(disk.pci),
  ]);
  return Buffer.from([disks.length % 256, Math.floor(disks.length / 256), ...each]);
}

export interface PlainRun {
  pfn: number;
  pages: number;
  disk: number;
  sector: number;
}

export interface PlainGroup {
  id: number;
  untracked?: boolean;
  runs: PlainRun[];
}

export function groupsPayload(groups: PlainGroup[]): Buffer {
  const bytes: number[] = [];
  let pfn = 0;
  let sector = 0;
  let disk = 0;
  for (const group of groups) {
    bytes.push(...u64(group.id), ...varint(group.runs.length * 2 + (group.untracked ? 1 : 0)));
    for (const run of group.runs) {
      const otherDisk = run.disk !== disk;
      bytes.push(...varint((run.pages - 1) * 2 + (otherDisk ? 1 : 0)));
      if (otherDisk) bytes.push(...varint(run.disk));
      bytes.push(...zigzag(run.pfn - pfn), ...zigzag(run.sector - sector));
      pfn = run.pfn + run.pages;
      sector = run.sector + run.pages * 8;
      disk = run.disk;
    }
  }
  return Buffer.from(bytes);
}

export function donePayload(mode: number, scanMs: number, pages: number, counters: [number, number][] = []): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt8(mode, 0);
  head.writeUInt32LE(scanMs, 1);
  const rest = counters.flatMap(([code, value]) => [...varint(code), ...varint(value)]);
  return Buffer.from([...head, ...varint(pages), ...rest]);
}
