import { readdir } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient, type ScanResult } from '../../guest-agent/client.js';
import { AgentGuest, buildAgent, Workspace } from './agentGuest.js';
import { copyInto, type KnownFiles, makeExt4, makePartitioned, makeXfs, writeKnownFiles } from './images.js';
import { expectRight, judge } from './truth.js';

const SECTOR_BYTES = 512;
/** Not a multiple of a page: where old partition tools put things. */
const FIRST_PARTITION_SECTOR = 2049;
const SECOND_PARTITION_SECTOR = 131072;
const LINEAR_SPLIT_BYTES = 20 * 1024 * 1024;
const LINEAR_SECTORS = (64 * 1024 * 1024) / SECTOR_BYTES;

let workspace: Workspace;
let guest: AgentGuest;
let agent: AgentClient;
const diskPaths: Record<string, string> = {};
const known: Record<string, KnownFiles> = {};

/** Four file systems: ext4 on a disk, ext4 and XFS on partitions, ext4 on a linear volume over two disks. */
async function makeDisks(): Promise<void> {
  for (const serial of ['whole', 'parts', 'linear-a', 'linear-b']) diskPaths[serial] = workspace.file(`${serial}.img`);
  for (const name of ['whole', 'part1', 'part2', 'linear']) {
    known[name] = await writeKnownFiles(workspace.file(name), 150, 100);
  }
  await makeExt4(diskPaths.whole!, known.whole!.directory, 80);

  await makePartitioned(diskPaths.parts!, 420, [
    { startSector: FIRST_PARTITION_SECTOR, sectors: 100_000 },
    { startSector: SECOND_PARTITION_SECTOR, sectors: 700_000 },
  ]);
  const part1 = workspace.file('part1.img');
  await makeExt4(part1, known.part1!.directory, 48);
  await copyInto(part1, diskPaths.parts!, { toBytes: FIRST_PARTITION_SECTOR * SECTOR_BYTES });
  const part2 = workspace.file('part2.img');
  const names = await readdir(known.part2!.directory, { recursive: true });
  await makeXfs(
    part2,
    known.part2!.directory,
    names.filter((name) => name.includes('/')),
  );
  await copyInto(part2, diskPaths.parts!, { toBytes: SECOND_PARTITION_SECTOR * SECTOR_BYTES });

  const linear = workspace.file('linear.img');
  await makeExt4(linear, known.linear!.directory, 64);
  for (const serial of ['linear-a', 'linear-b']) {
    await makePartitioned(diskPaths[serial]!, 72, [{ startSector: 2048, sectors: 140_000 }]);
  }
  await copyInto(linear, diskPaths['linear-a']!, { toBytes: 2 * 2 ** 20, lengthBytes: LINEAR_SPLIT_BYTES });
  await copyInto(linear, diskPaths['linear-b']!, { fromBytes: LINEAR_SPLIT_BYTES, toBytes: 3 * 2 ** 20 });
}

beforeAll(async () => {
  workspace = await Workspace.create();
  await makeDisks();
  guest = await AgentGuest.boot({
    dir: workspace.file('guest'),
    name: 'layouts',
    memoryMiB: 512,
    memoryFile: workspace.ramPath,
    agentPath: await buildAgent(workspace.file('agent')),
    mountDisks: false,
    disks: Object.entries(diskPaths).map(([id, path]) => ({ id, path })),
  });
  const split = LINEAR_SPLIT_BYTES / SECTOR_BYTES;
  // The volume's parts are on the partition of one disk and, one MiB further on, of the other.
  const table = `${split} /dev/vdc1 2048 ${LINEAR_SECTORS - split} /dev/vdd1 4096`;
  await guest.shell.output(
    `insmod /modules/*-xfs.ko 2>/dev/null
    mkdir -p /m/whole /m/part1 /m/part2 /m/linear && dm-linear volume ${table} &&
    mount -t ext4 -o strictatime /dev/vda /m/whole && mount -t ext4 /dev/vdb1 /m/part1 &&
    mount -t xfs /dev/vdb2 /m/part2 && mount -t ext4 /dev/volume /m/linear`,
    { timeoutMs: 60_000 },
  );
  agent = await AgentClient.connect({ path: guest.qemu.agentPath });
}, 240_000);

afterAll(async () => {
  agent?.close();
  await guest?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

describe('a scan of a real guest', () => {
  let scan: ScanResult;

  it('reads nothing from the disks', async () => {
    await guest.shell.output('find /m -type f -exec cat {} + >/dev/null; sync', { timeoutMs: 60_000 });
    scan = await agent.scan({ mode: 'full' });
    expect(await guest.agentReadBytes()).toBe(0);
  });

  it('finds at least 99 % of the cached file pages on every layout, and claims nothing that is not so', async () => {
    const verdict = await judge(scan, { ramPath: workspace.ramPath, diskPaths }, guest.qmp);
    expect(verdict.pages).toBe(scan.pages);
    for (const [name, { pages }] of Object.entries(known)) {
      expectRight(verdict, pages);
      const resident = pages.intersect(verdict.ram);
      expect(resident.size, `${name}: cached`).toBeGreaterThan(3000);
      expect(resident.countIn(verdict.found) / resident.size, name).toBeGreaterThanOrEqual(0.99);
    }
  });

  it('says which disk is which', async () => {
    expect(scan.disks.map((disk) => [disk.name, disk.serial, disk.sizeBytes]).sort()).toEqual([
      ['vda', 'whole', 80 * 2 ** 20],
      ['vdb', 'parts', 420 * 2 ** 20],
      ['vdc', 'linear-a', 72 * 2 ** 20],
      ['vdd', 'linear-b', 72 * 2 ** 20],
    ]);
    // QEMU's view of the PCI bus: virtio block devices at just these addresses.
    const buses = (await guest.qmp.execute('query-pci')) as {
      bus: number;
      devices: { slot: number; function: number; class_info: { class: number } }[];
    }[];
    const storage = buses.flatMap(({ bus, devices }) =>
      devices
        .filter((device) => device.class_info.class === 0x0100)
        .map((device) => [bus, device.slot, device.function]),
    );
    const addresses = storage.map(
      ([bus, slot, fn]) => `0000:${bus!.toString(16).padStart(2, '0')}:${slot!.toString(16).padStart(2, '0')}.${fn}`,
    );
    expect(scan.disks.map((disk) => disk.pciAddress).sort()).toEqual(addresses.sort());
  });

  it('leaves access times as they are', async () => {
    const files = '/m/whole /m/whole/group-0 /m/whole/group-0/file-7 /m/part2/group-0-file-7';
    const times = () => guest.shell.output(`stat -c "%n %X" ${files}`);
    const before = await times();
    await guest.shell.output('sleep 1.1');
    await agent.scan({ mode: 'full' });
    expect(await times()).toBe(before);
  });
});
