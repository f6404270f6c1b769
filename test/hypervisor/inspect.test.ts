import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, truncate, writeFile } from 'node:fs/promises';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { matchDisks } from '../../disk/index.js';
import { findGpaRange, type GuestInspection, inspectGuest } from '../../hypervisor/index.js';
import { endProcess } from '../../hypervisor/source.js';
import { binaryOf, tinyMachine, versions, Workshop } from './qemu.js';

const MiB = 1024 ** 2;
const GiB = 1024 ** 3;
let workshop: Workshop;

beforeEach(async () => {
  workshop = await Workshop.open();
});
afterEach(() => workshop[Symbol.asyncDispose]());

async function image(name: string, megabytes: number): Promise<string> {
  const path = workshop.file(name);
  await writeFile(path, '');
  await truncate(path, megabytes * MiB);
  return path;
}

/** Where a guest physical address is kept: `block+offset`, or null. */
function placeOf(inspection: GuestInspection, gpa: number): string | null {
  const range = findGpaRange(inspection.memory.gpaMap, gpa);
  return range === undefined ? null : `${range.block}+${range.blockOffset + gpa - range.gpaStart}`;
}

describe.each(versions)('with QEMU %s', (version) => {
  test('tells version, process, machine, state and CPUs of a guest', async () => {
    const guest = await workshop.start(version, 'vm1', [...tinyMachine, '-smp', '2', '-cpu', 'max']);
    const inspection = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
    expect(`${inspection.qemuVersion.major}.${inspection.qemuVersion.minor}`).toBe(version);
    expect(inspection.process).toMatchObject({ ...guest.process, cwd: workshop.path, uid: 0, gid: 0 });
    expect(inspection.process.argv.slice(-2)).toEqual(guest.argv.slice(-2));
    expect(inspection).toMatchObject({
      name: 'vm1',
      machineType: `pc-q35-${version}`,
      accelerator: 'other',
      cpuType: 'max-x86_64-cpu',
      cpuCount: 2,
      runState: 'running',
      running: true,
      agentPath: null,
      migration: { status: 'none', blockers: [] },
    });
    expect(inspection.memory).toMatchObject({ totalBytes: 64 * MiB, backends: [{ id: 'pc.ram', shared: false }] });
    expect(JSON.parse(JSON.stringify(inspection))).toEqual(inspection);
  });

  // The firmware rearranges what is below 1 MiB while it runs.
  test.each([
    ['q35', 1, { [MiB]: MiB, [GiB - 1]: GiB - 1, [GiB]: null, [4 * GiB]: null }],
    ['pc', 1, { [MiB]: MiB, [GiB - 1]: GiB - 1, [GiB]: null, [4 * GiB]: null }],
    [
      'q35',
      6,
      {
        [MiB]: MiB,
        [2 * GiB - 1]: 2 * GiB - 1,
        [2 * GiB]: null,
        [4 * GiB]: 2 * GiB,
        [8 * GiB - 1]: 6 * GiB - 1,
        [8 * GiB]: null,
      },
    ],
    [
      'pc',
      6,
      {
        [MiB]: MiB,
        [3 * GiB - 1]: 3 * GiB - 1,
        [3 * GiB]: null,
        [4 * GiB]: 3 * GiB,
        [7 * GiB - 1]: 6 * GiB - 1,
        [7 * GiB]: null,
      },
    ],
  ])('maps the memory of a %s machine of %d GiB', async (machine, gigabytes, expected) => {
    const args = ['-machine', machine, '-accel', 'tcg', '-m', `${gigabytes}G`, '-display', 'none', '-nodefaults'];
    const guest = await workshop.start(version, 'vm1', args);
    const inspection = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
    expect(inspection.memory.totalBytes).toBe(gigabytes * GiB);
    for (const [gpa, offset] of Object.entries(expected)) {
      expect(placeOf(inspection, Number(gpa)), `at ${gpa}`).toBe(offset === null ? null : `pc.ram+${offset}`);
    }
    expect(inspection.memory.blocks.find(({ name }) => name === 'pc.ram')?.totalBytes).toBe(gigabytes * GiB);
  });

  test('maps memory back ends and memory modules under their own names', async () => {
    const guest = await workshop.start(version, 'vm1', [
      ...[
        '-machine',
        'q35,memory-backend=m0',
        '-accel',
        'tcg',
        '-m',
        '64M,slots=2,maxmem=1G',
        '-display',
        'none',
        '-nodefaults',
      ],
      ...['-object', 'memory-backend-memfd,id=m0,size=64M,share=on', '-vga', 'std'],
      ...['-object', 'memory-backend-ram,id=m1,size=128M', '-device', 'pc-dimm,memdev=m1,id=dimm0'],
    ]);
    const inspection = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
    expect(placeOf(inspection, 32 * MiB)).toBe(`m0+${32 * MiB}`);
    expect(placeOf(inspection, 4 * GiB + MiB)).toBe(`m1+${MiB}`);
    expect(inspection.memory.totalBytes).toBe(192 * MiB);
    expect(inspection.memory.backends.find(({ id }) => id === 'm0')).toMatchObject({
      shared: true,
      sizeBytes: 64 * MiB,
    });
    expect(inspection.deviceTypes).toContain('pc-dimm');
  });

  test('tells image, serial number and PCI address of disks, however they are attached', async () => {
    await Promise.all([image('a.img', 1), image('b.img', 2), image('c.img', 3), image('d.img', 4)]);
    const guest = await workshop.start(version, 'vm1', [
      ...tinyMachine,
      ...[
        '-drive',
        'file=a.img,format=raw,if=none,id=drive0',
        '-device',
        'virtio-blk-pci,drive=drive0,serial=SER0,id=disk0',
      ],
      ...['-device', 'pcie-root-port,id=port1,chassis=1', '-device', 'pcie-root-port,chassis=2,slot=2'],
      ...['-device', 'virtio-scsi-pci,id=scsi0,bus=port1', '-device', 'scsi-hd,drive=node1,serial=SER1,bus=scsi0.0'],
      ...[
        '-blockdev',
        `driver=raw,node-name=node1,read-only=on,file.driver=file,file.filename=${workshop.file('b.img')}`,
      ],
      ...['-blockdev', `{"driver":"file","node-name":"node2","filename":"${workshop.file('c.img')}"}`],
      ...['-device', 'virtio-blk-pci,drive=node2,addr=1e.3,multifunction=on'],
      ...['-drive', `if=ide,format=raw,file=${workshop.file('d.img')}`, '-drive', 'if=ide,media=cdrom'],
    ]);
    await new Promise((resolve) => setTimeout(resolve, 500)); // The firmware numbers the PCI buses.
    const { disks } = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
    const bySize = disks.toSorted((left, right) => left.sizeBytes - right.sizeBytes);
    expect(bySize).toMatchObject([
      { removable: true, imagePath: null, format: null, pciAddress: '0000:00:1f.2' },
      {
        driveId: 'drive0',
        qdevId: 'disk0',
        serial: 'SER0',
        format: 'raw',
        imagePath: workshop.file('a.img'),
        readOnly: false,
      },
      { driveId: null, nodeName: 'node1', serial: 'SER1', format: 'raw', pciAddress: '0000:01:00.0', readOnly: true },
      { nodeName: 'node2', serial: null, format: 'raw', imagePath: workshop.file('c.img'), pciAddress: '0000:00:1e.3' },
      { imagePath: workshop.file('d.img'), sizeBytes: 4 * MiB, pciAddress: '0000:00:1f.2' },
    ]);
    expect(bySize[1]?.pciAddress).toMatch(/^0000:00:0[1-9]\.0$/);
    expect(bySize[1]?.imageInode).toBeGreaterThan(0);

    const seen = { index: 0, name: 'vda', serial: 'SER0', sizeBytes: MiB, pciAddress: bySize[1]!.pciAddress };
    expect(matchDisks([seen], disks).matched).toMatchObject([{ host: { driveId: 'drive0' }, by: 'pciAddress' }]);
  });

  test('tells format, virtual size and whereabouts of images that are not raw', async () => {
    const create = (...args: string[]) => execa('qemu-img', ['create', '-q', ...args], { cwd: workshop.path });
    await image('base.img', 3);
    await create('-f', 'qcow2', '-b', 'base.img', '-F', 'raw', 'a.qcow2', '5M');
    await create('-f', 'qcow2', '-b', 'base.img', '-F', 'raw', 'middle.qcow2', '5M');
    await create('-f', 'qcow2', '-b', 'middle.qcow2', '-F', 'qcow2', 'b.qcow2', '6M');
    const socket = workshop.file('nbd.sock');
    const server = spawn('qemu-nbd', ['-r', '-k', socket, '-f', 'raw', workshop.file('base.img')], { stdio: 'ignore' });
    try {
      await vi.waitFor(() => access(socket), 10_000);
      const guest = await workshop.start(version, 'vm1', [
        ...tinyMachine,
        ...['-drive', 'file=a.qcow2,format=qcow2,if=virtio'],
        // With a backing chain given layer by layer, as libvirt does it.
        ...['-blockdev', '{"driver":"file","node-name":"n1","filename":"base.img","read-only":true}'],
        ...['-blockdev', '{"driver":"raw","node-name":"n2","file":"n1","read-only":true}'],
        ...['-blockdev', '{"driver":"file","node-name":"n3","filename":"middle.qcow2","read-only":true}'],
        ...['-blockdev', '{"driver":"qcow2","node-name":"n4","file":"n3","backing":"n2","read-only":true}'],
        ...['-blockdev', `{"driver":"file","node-name":"n5","filename":"${workshop.file('b.qcow2')}"}`],
        ...['-blockdev', '{"driver":"qcow2","node-name":"n6","file":"n5","backing":"n4"}'],
        ...['-device', 'virtio-blk-pci,drive=n6,share-rw=on'],
        ...['-drive', `file=nbd+unix:///?socket=${socket},format=raw,if=virtio,read-only=on`],
      ]);
      const { disks } = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
      expect(disks.toSorted((left, right) => left.sizeBytes - right.sizeBytes)).toMatchObject([
        { format: 'raw', sizeBytes: 3 * MiB, imagePath: null, imageUri: expect.stringContaining(socket) },
        {
          format: 'qcow2',
          sizeBytes: 5 * MiB,
          imagePath: workshop.file('a.qcow2'),
          imageUri: null,
          isEncrypted: false,
        },
        { format: 'qcow2', sizeBytes: 6 * MiB, imagePath: workshop.file('b.qcow2'), nodeName: 'n6' },
      ]);
    } finally {
      server.kill();
    }
  });

  test('finds the socket of the guest agent by the name of its port', async () => {
    const socket = workshop.file('agent.sock');
    const guest = await workshop.start(version, 'vm1', [
      ...tinyMachine,
      ...['-device', 'virtio-serial', '-chardev', `socket,id=agent0,path=${socket},server=on,wait=off`],
      ...['-device', 'virtserialport,chardev=agent0,name=org.vmmig.agent.0'],
      ...['-chardev', 'null,id=other', '-device', 'virtserialport,chardev=other,name=org.example.other'],
    ]);
    const options = { name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp };
    expect((await inspectGuest(options)).agentPath).toBe(socket);
    expect((await inspectGuest({ ...options, agentPath: '/run/other' })).agentPath).toBe('/run/other');
  });

  test('tells why QEMU would refuse to migrate', async () => {
    const guest = await workshop.start(version, 'vm1', [
      ...tinyMachine,
      ...['-object', 'memory-backend-ram,id=m1,size=1M,share=on', '-device', 'ivshmem-plain,memdev=m1'],
    ]);
    const { migration } = await inspectGuest({ name: 'vm1', qmpPath: guest.qmpPath, qmp: guest.qmp });
    expect(migration.blockers).toEqual([expect.stringContaining('ivshmem')]);
  });
});

test('finds the process of a daemonized QEMU over a connection of its own', async () => {
  const qmpPath = workshop.file('vm1.qmp');
  const args = [...tinyMachine, '-daemonize', '-qmp', `unix:${qmpPath},server=on,wait=off`];
  const parent = spawn(await binaryOf('7.2'), args, { stdio: 'ignore' });
  await once(parent, 'exit');
  const { process } = await inspectGuest({ name: 'vm1', qmpPath });
  try {
    expect(process.pid).not.toBe(parent.pid);
    expect(process.argv).toContain('-daemonize');
    expect((await inspectGuest({ name: 'vm1', qmpPath })).process).toEqual(process);
  } finally {
    await endProcess(process);
  }
});

test('says that nothing answers where there is no guest', async () => {
  const inspection = inspectGuest({ name: 'vm1', qmpPath: workshop.file('none.qmp') });
  await expect(inspection).rejects.toMatchObject({ code: 'VMMIG_QMP_CONNECT' });
});
