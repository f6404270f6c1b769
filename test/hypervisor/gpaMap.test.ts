import fc from 'fast-check';
import { expect, test } from 'vitest';
import { findGpaRange, type GpaRange, parseGpaMap } from '../../hypervisor/gpaMap.js';
import { parseRamBlocks } from '../../hypervisor/ramBlocks.js';

const MiB = 1024 ** 2;
const ramblock = [
  '              Block Name    PSize              Offset               Used              Total',
  '                  pc.ram    4 KiB  0x0000000000000000 0x0000000180000000 0x0000000180000000',
  '                    huge    2 MiB  0x0000000180000000 0x0000000000200000 0x0000000000400000',
  '    0000:00:01.0/vga.vram    4 KiB  0x0000000040080000 0x0000000001000000 0x0000000001000000',
  '   0000:00:02.0/qxl.vram    4 KiB  0x0000000041080000 0x0000000001000000 0x0000000001000000',
  '   0000:00:03.0/qxl.vram    4 KiB  0x0000000042080000 0x0000000001000000 0x0000000001000000',
  '    /rom@etc/acpi/tables    4 KiB  0x0000000180080000 0x0000000000020000 0x0000000000200000',
  '',
].join('\r\n');
const blocks = parseRamBlocks(ramblock);

function mtree(...lines: string[]): string {
  return ['FlatView #0', ' AS "memory", root: system', ' Root memory region: system', ...lines, ''].join('\r\n');
}

test('the RAMBlocks carry their names, page sizes and lengths', () => {
  expect(blocks[0]).toEqual({ name: 'pc.ram', pageSizeBytes: 4096, usedBytes: 6144 * MiB, totalBytes: 6144 * MiB });
  expect(blocks[1]).toEqual({ name: 'huge', pageSizeBytes: 2 * MiB, usedBytes: 2 * MiB, totalBytes: 4 * MiB });
  expect(blocks.map(({ name }) => name)).toContain('/rom@etc/acpi/tables');
});

test('columns that later versions added do no harm', () => {
  const row = '  mem 0    4 KiB  0x0000000000000000 0x0000000004000000 0x0000000004000000 0x00007f3c40000000  rw';
  expect(parseRamBlocks(row)).toEqual([
    { name: 'mem 0', pageSizeBytes: 4096, usedBytes: 64 * MiB, totalBytes: 64 * MiB },
  ]);
});

test('the map holds RAM, not ROM or I/O, with the offset in its block', () => {
  const map = parseGpaMap(
    mtree(
      '  0000000000000000-00000000000bffff (prio 0, ram): pc.ram',
      '  00000000000c0000-00000000000cafff (prio 0, rom): pc.ram @00000000000c0000',
      '  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio',
      '  0000000100000000-00000001ffffffff (prio 0, ram): pc.ram @0000000080000000 KVM',
      '  0000000000100000-000000007fffffff (prio 0, ram): pc.ram @0000000000100000',
    ),
    blocks,
  );
  expect(map).toEqual([
    { gpaStart: 0, lengthBytes: 0xc0000, block: 'pc.ram', blockOffset: 0 },
    { gpaStart: 0x100000, lengthBytes: 0x7ff00000, block: 'pc.ram', blockOffset: 0x100000 },
    { gpaStart: 0x100000000, lengthBytes: 0x100000000, block: 'pc.ram', blockOffset: 0x80000000 },
  ]);
});

test('only the address space "memory" counts', () => {
  const other = mtree('  0000000000000000-0000000000000fff (prio 0, ram): pc.ram').replace('"memory"', '"cpu-smm-0"');
  expect(parseGpaMap(other, blocks)).toEqual([]);
  expect(
    parseGpaMap(`${other}${mtree('  0000000000001000-0000000000001fff (prio 0, ram): pc.ram')}`, blocks),
  ).toHaveLength(1);
});

test("a device's memory is found under the device's path, unless two devices have one of that name", () => {
  const map = parseGpaMap(
    mtree(
      '  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram',
      '  00000000fe000000-00000000feffffff (prio 1, ram): qxl.vram',
    ),
    blocks,
  );
  expect(map.map(({ block }) => block)).toEqual(['0000:00:01.0/vga.vram']);
});

test('a range that its block cannot hold is left out', () => {
  expect(parseGpaMap(mtree('  0000000000000000-0000000000400000 (prio 0, ram): huge'), blocks)).toEqual([]);
});

test('text that is no memory tree gives an empty map', () => {
  fc.assert(fc.property(fc.string(), (text) => parseGpaMap(text, blocks).length === 0));
  fc.assert(fc.property(fc.string(), (text) => parseRamBlocks(text).length === 0));
});

test('an address is found in the range that holds it, and in none in between', () => {
  const gap = fc.record({ gap: fc.integer({ min: 1, max: 9 }), length: fc.integer({ min: 1, max: 9 }) });
  fc.assert(
    fc.property(fc.array(gap, { maxLength: 8 }), (parts) => {
      const map: GpaRange[] = [];
      let end = 0;
      for (const { gap: hole, length } of parts) {
        map.push({ gpaStart: end + hole, lengthBytes: length, block: 'pc.ram', blockOffset: 0 });
        end += hole + length;
      }
      for (let gpa = 0; gpa <= end; gpa += 1) {
        const expected = map.find(({ gpaStart, lengthBytes }) => gpa >= gpaStart && gpa < gpaStart + lengthBytes);
        expect(findGpaRange(map, gpa)).toBe(expected);
      }
    }),
  );
});
