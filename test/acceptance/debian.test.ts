/**
 * A real guest: Debian with PostgreSQL and nginx, a volume group, partitions, ext4 and xfs, and qemu-guest-agent. Its
 * clients, outside of both hosts, work while it moves, and find everything that they were promised.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { labExec } from '../../lab/index.js';
import { Announcements, Pgbench, WebClient } from './debian/clients.js';
import { Database } from './debian/database.js';
import { expectNothingLeft, Guest, isFull, useLab } from './rig.js';

const minutes = 60_000;
/** The guest is slow: two processors emulate it, both hosts and all clients. */
const workMs = 5000;
const ports = { hostA: 'to-guests-a', hostB: 'to-guests-b' } as const;

/**
 * The kernel's own word on its pages, whatever file systems and volumes they belong to: those on its lists of
 * reclaimable pages that are neither anonymous nor shared memory, complete, and no newer than the disk. A large folio's
 * flags are those of its first page.
 */
const countCleanFilePages = `perl -e '
  open my $flags, "<:raw", "/proc/kpageflags" or die;
  my ($head, $count) = (0, 0);
  while (sysread $flags, my $bytes, 65536) {
    for (unpack "Q<*", $bytes) {
      my $page = $_;
      $head = $page if $page >> 15 & 1;
      $page = $head if $page >> 16 & 1;
      my ($uptodate, $dirty, $lru, $writeback, $anon, $swapbacked) = map $page >> $_ & 1, 3, 4, 5, 8, 12, 14;
      $count++ if $uptodate && $lru && !$dirty && !$writeback && !$anon && !$swapbacked;
    }
  }
  print $count'`;

/** What vmmig's agent would leave in a guest. */
const traces = 'ls -A /run /tmp /dev/shm | grep vmmig; readlink /proc/[0-9]*/exe | grep vmmig; true';

const kinds = [
  { kind: 'under QEMU alone', diskFormat: 'raw', libvirt: null },
  { kind: 'under QEMU alone', diskFormat: 'qcow2', libvirt: null },
  { kind: 'of libvirt 9.0', diskFormat: 'raw', libvirt: '9.0' },
  { kind: 'of libvirt 11.3', diskFormat: 'qcow2', libvirt: '11.3' },
] as const;
const modes = ['teleport', 'switch'] as const;

describe.runIf(isFull).each(kinds)('A debian guest $kind, its disks $diskFormat', ({ diskFormat, libvirt }) => {
  const options = libvirt === null ? [] : ['--unsafe'];
  let guest: Guest;
  let address: string;
  let database: Database;

  useLab({ rttMs: 40, rateBps: 200e6, libvirt });

  beforeAll(async () => {
    guest = await Guest.start('vm1', { kind: 'debian', memoryMiB: 768, diskFormat, libvirt: libvirt !== null });
    address = guest.address!;
    database = new Database(guest);
    await database.create();
  }, 15 * minutes);

  it('leaves 95 % of its clean page cache on its disks', { timeout: 10 * minutes }, async () => {
    {
      await using pgbench = await Pgbench.start(address);
      await using web = await WebClient.start(address);
      await sleep(3 * workMs);
      expect(await web.stop()).toMatchObject({ faults: [] });
      await database.expectEverythingCommitted(pgbench);
    }
    // A partition of its own, which would be missed if nothing of it were found; nginx has served as much of the xfs.
    const bootPages = Number(await guest.run('cat $(find /boot -type f) | wc -c; sync')) / 4096;
    const clean = Number(await guest.run(countCleanFilePages));
    expect(clean).toBeGreaterThan(40_000);
    expect(bootPages / clean).toBeGreaterThan(0.05);
    const { report } = await guest.teleport(...options);
    expect(report.agent).toMatchObject({ via: 'qemu-ga' });
    expect(report.pages.teleported / clean, `of ${clean} pages`).toBeGreaterThanOrEqual(0.95);
    // An agent that is moved in the middle of a scan waits for a while for whoever wants to hear it.
    await expect.poll(() => guest.run(traces), { timeout: minutes, interval: 2000 }).toBe('');
    expect(await guest.run('checksum', minutes)).toMatch(/ failed 0$/);
  });

  it.each(modes)('keeps every promise that it has made to its clients: %s', { timeout: 10 * minutes }, async (mode) => {
    await using pgbench = await Pgbench.start(address);
    await using web = await WebClient.start(address);
    await sleep(workMs);
    const port = ports[guest.otherHost];
    await using announcements = await Announcements.on(port);
    await guest[mode](...options);
    const mac = await guest.run('cat /sys/class/net/eth0/address');
    await expect.poll(() => announcements.lines, { timeout: 20_000 }).toContain(`arp ${mac} ${address}`);
    const learned = (await labExec('wan', ['bridge', 'fdb', 'show', 'br', 'guests'])).stdout;
    expect(learned).toContain(`${mac} dev ${port} `);
    const committed = await database.committed();
    await sleep(workMs);
    expect(await database.committed()).toBeGreaterThan(committed);
    const { faults, connections, announced } = await web.stop();
    expect(faults).toEqual([]);
    expect(connections - announced).toBeLessThanOrEqual(1);
    await database.expectEverythingCommitted(pgbench);
    if (libvirt === null) await expectNothingLeft([guest]);
  });

  it('has a database without a bad page, in its page cache and on its disk', { timeout: 5 * minutes }, async () => {
    await database.expectSound();
    expect(await guest.run('checksum', minutes)).toMatch(/ failed 0$/);
  });
});
