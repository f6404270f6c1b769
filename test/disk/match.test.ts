import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type GuestDisk, type HostDisk, matchDisks } from '../../disk/match.js';

const GiB = 1024 ** 3;

function guest(name: string, more: Partial<GuestDisk> = {}): GuestDisk {
  return { index: 0, name, serial: null, sizeBytes: GiB, pciAddress: null, ...more };
}

function host(driveId: string, more: Partial<HostDisk> = {}): HostDisk {
  const rest = { qdevId: null, nodeName: null, imagePath: `/${driveId}.img`, format: 'raw' };
  return { driveId, serial: null, sizeBytes: GiB, pciAddress: null, ...rest, ...more };
}

/** The outcome as text: `vda=d0 by size`, or `vda: reason`. */
function outcome(guests: GuestDisk[], hosts: HostDisk[]): string[] {
  const { matched, unmatched } = matchDisks(guests, hosts);
  return [
    ...matched.map(({ guest, host, by }) => `${guest.name}=${host.driveId} by ${by}`),
    ...unmatched.map(({ guest, reason }) => `${guest.name}: ${reason}`),
  ];
}

describe('by PCI address', () => {
  test('pairs disks of the same size and serial that only their address tells apart', () => {
    const guests = [guest('vda', { pciAddress: '0000:00:04.0' }), guest('vdb', { pciAddress: '0000:01:00.0' })];
    const hosts = [host('d0', { pciAddress: '0000:01:00.0' }), host('d1', { pciAddress: '0000:00:04.0' })];
    expect(outcome(guests, hosts)).toEqual(['vda=d1 by pciAddress', 'vdb=d0 by pciAddress']);
  });

  test('takes upper and lower case hexadecimal for the same', () => {
    expect(
      outcome([guest('vda', { pciAddress: '0000:0A:00.0' })], [host('d0', { pciAddress: '0000:0a:00.0' })]),
    ).toEqual(['vda=d0 by pciAddress']);
  });

  test('tells disks on one controller apart by their serial numbers, else by their sizes', () => {
    const pciAddress = '0000:00:1f.2';
    const guests = [
      guest('sda', { pciAddress, serial: 'one' }),
      guest('sdb', { pciAddress, serial: 'two' }),
      guest('sdc', { pciAddress, sizeBytes: 3 * GiB }),
      guest('sdd', { pciAddress, sizeBytes: 4 * GiB }),
    ];
    const hosts = [
      host('d3', { pciAddress, sizeBytes: 4 * GiB }),
      host('d1', { pciAddress, serial: 'two' }),
      host('d2', { pciAddress, sizeBytes: 3 * GiB }),
      host('d0', { pciAddress, serial: 'one' }),
    ];
    const pairs = outcome(guests, hosts).map((line) => line.split(' ')[0]);
    expect(pairs).toEqual(['sda=d0', 'sdb=d1', 'sdc=d2', 'sdd=d3']);
  });

  test('refuses a disk whose size differs, even where another disk has that size', () => {
    const guests = [guest('vda', { pciAddress: '0000:00:04.0', sizeBytes: 2 * GiB })];
    const hosts = [host('d0', { pciAddress: '0000:00:04.0' }), host('d1', { sizeBytes: 2 * GiB })];
    expect(outcome(guests, hosts)).toEqual([`vda: vda has ${2 * GiB} bytes, QEMU's d0 has ${GiB}`]);
  });

  test('refuses a disk whose serial number differs', () => {
    const guests = [guest('vda', { pciAddress: '0000:00:04.0', serial: 'a' })];
    const hosts = [host('d0', { pciAddress: '0000:00:04.0', serial: 'b' })];
    expect(outcome(guests, hosts)).toEqual(["vda: vda has the serial number a, QEMU's d0 has b"]);
  });

  test('refuses two disks of the guest that claim the same address', () => {
    const guests = [guest('vda', { pciAddress: '0000:00:04.0' }), guest('vdb', { pciAddress: '0000:00:04.0' })];
    expect(outcome(guests, [host('d0', { pciAddress: '0000:00:04.0' })])).toEqual([
      'vda: more than one pair of disks fits vda by its size',
      'vdb: more than one pair of disks fits vdb by its size',
    ]);
  });
});

describe('by serial number', () => {
  test('pairs where the address is known to one side only', () => {
    const guests = [guest('vda', { serial: 'data', pciAddress: '0000:00:04.0' }), guest('vdb', { serial: 'root' })];
    const hosts = [host('d0', { serial: 'root', pciAddress: '0000:00:05.0' }), host('d1', { serial: 'data' })];
    expect(outcome(guests, hosts)).toEqual(['vda=d1 by serial', 'vdb=d0 by serial']);
  });

  test('knows a serial number that the device has cut off', () => {
    const long = '0123456789abcdefghijklmnopqrstuvwxyz-rest';
    expect(outcome([guest('vda', { serial: long.slice(0, 20) })], [host('d0', { serial: long })])).toEqual([
      'vda=d0 by serial',
    ]);
    expect(outcome([guest('sda', { serial: long.slice(0, 36) })], [host('d0', { serial: long })])).toEqual([
      'sda=d0 by serial',
    ]);
    expect(outcome([guest('sda', { serial: long.slice(0, 12) })], [host('d0', { serial: long })])[0]).toMatch(/^sda: /);
  });

  test('refuses a disk that is known to be at another address', () => {
    const guests = [guest('vda', { serial: 'x', pciAddress: '0000:00:04.0' })];
    expect(outcome(guests, [host('d0', { serial: 'x', pciAddress: '0000:00:05.0' })])).toEqual([
      "vda: vda is at PCI address 0000:00:04.0, QEMU's d0 at 0000:00:05.0",
    ]);
  });

  test('refuses a disk whose size differs', () => {
    expect(outcome([guest('vda', { serial: 'x', sizeBytes: GiB + 512 })], [host('d0', { serial: 'x' })])).toEqual([
      `vda: vda has ${GiB + 512} bytes, QEMU's d0 has ${GiB}`,
    ]);
  });

  test('takes blank serial numbers for none', () => {
    const guests = [guest('vda', { serial: ' ' }), guest('vdb', { serial: '', sizeBytes: 2 * GiB })];
    expect(outcome(guests, [host('d0', { serial: '' }), host('d1', { serial: ' ', sizeBytes: 2 * GiB })])).toEqual([
      'vda=d0 by size',
      'vdb=d1 by size',
    ]);
  });
});

describe('by size', () => {
  test('pairs disks whose size is unique', () => {
    expect(
      outcome([guest('vda'), guest('vdb', { sizeBytes: 2 * GiB })], [host('d0', { sizeBytes: 2 * GiB }), host('d1')]),
    ).toEqual(['vda=d1 by size', 'vdb=d0 by size']);
  });

  test('pairs what is left when stronger evidence has settled the rest', () => {
    const guests = [guest('vda'), guest('vdb', { serial: 'x' })];
    expect(outcome(guests, [host('d0', { serial: 'x' }), host('d1')])).toEqual(['vda=d1 by size', 'vdb=d0 by serial']);
  });

  test('guesses nothing where two have the same size', () => {
    expect(outcome([guest('vda')], [host('d0'), host('d1')])).toEqual([
      'vda: more than one pair of disks fits vda by its size',
    ]);
    expect(outcome([guest('vda'), guest('vdb')], [host('d0')])).toHaveLength(2);
  });

  test('allows for the size being rounded down to whole sectors, no more', () => {
    expect(outcome([guest('vda', { sizeBytes: GiB - 512 })], [host('d0')])).toEqual(['vda=d0 by size']);
    expect(outcome([guest('vda', { sizeBytes: GiB - 4096 })], [host('d0')])).toEqual([
      'vda: QEMU has no disk that fits vda',
    ]);
    expect(outcome([guest('vda', { sizeBytes: GiB + 512 })], [host('d0')])).toEqual([
      'vda: QEMU has no disk that fits vda',
    ]);
  });
});

test('every disk of the guest is accounted for once, no image is used twice and no pair contradicts itself', () => {
  const maybe = <T>(...values: T[]) => fc.constantFrom(null, ...values);
  const identity = {
    serial: maybe('a', 'b', '', 'c'),
    sizeBytes: fc.constantFrom(GiB, 2 * GiB),
    pciAddress: maybe('0000:00:04.0', '0000:00:05.0'),
  };
  const guests = fc.array(fc.record(identity), { maxLength: 5 });
  const hosts = fc.array(fc.record(identity), { maxLength: 5 });
  fc.assert(
    fc.property(guests, hosts, (someGuests, someHosts) => {
      const ours = someGuests.map((more, index) => guest(`vd${index}`, { ...more, index }));
      const theirs = someHosts.map((more, index) => host(`d${index}`, more));
      const { matched, unmatched } = matchDisks(ours, theirs);
      const named = [...matched.map((pair) => pair.guest), ...unmatched.map((one) => one.guest)];
      expect(named.map((one) => one.index).sort()).toEqual(ours.map((one) => one.index));
      expect(new Set(matched.map((pair) => pair.host)).size).toBe(matched.length);
      for (const pair of matched) {
        expect(pair.guest.sizeBytes).toBe(pair.host.sizeBytes);
        if (pair.guest.pciAddress && pair.host.pciAddress) expect(pair.guest.pciAddress).toBe(pair.host.pciAddress);
        if (pair.guest.serial && pair.host.serial) expect(pair.guest.serial).toBe(pair.host.serial);
      }
    }),
  );
});
