import { describe, expect, test } from 'vitest';
import { parseMappings, touchedPages } from '../../hypervisor/touchedMemory.js';

const smaps = `7f0000000000-7f0010002000 rw-p 00000000 00:00 0
Size:             262152 kB
KernelPageSize:        4 kB
Rss:               65536 kB
Pss:               65536 kB
VmFlags: rd wr mr mw me ac dd
7f0020000000-7f0020001000 r--p 00000000 08:01 1234                       /usr/bin/qemu-system-x86_64
Size:                  4 kB
Rss:                   4 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Rss:                   0 kB
`;

describe('touched memory', () => {
  test('is what mappings hold', () => {
    expect(parseMappings(smaps)).toEqual([
      { sizeBytes: 0x1000_2000, residentBytes: 64 * 1024 * 1024 },
      { sizeBytes: 4096, residentBytes: 4096 },
      { sizeBytes: 4096, residentBytes: 0 },
    ]);
    expect(parseMappings('')).toEqual([]);
  });

  test('is not known of a process that has no such memory, or that there is not', async () => {
    const block = { name: 'pc.ram', pageSizeBytes: 4096, usedBytes: 2 ** 50, totalBytes: 2 ** 50 };
    expect(await touchedPages(process.pid, [block])).toBeNull();
    expect(await touchedPages(2 ** 30, [block])).toBeNull();
  });
});
