/** Domains and hosts that are not as they should be: a clear refusal or a clean end, and nothing changed. */
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type HostName, labExec, labPaths, setWan, virsh } from '../../lab/index.js';
import { expectQuiet, expectToRunOnce, killDaemon, refusals, startDaemon, startDomain, unsafe } from './domains.js';
import { fastWan, type Guest, isFull, useLab } from './rig.js';

const timeout = 240_000;
const slowWan = { rttMs: 10, rateBps: 20e6 } as const;
const image = () => join(labPaths.shared(), 'vm1-data.img');

/** Runs a command on a host for as long as something else takes; it says a line when it has begun. */
async function during<T>(host: HostName, script: string, work: () => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const options = { reject: false, cancelSignal: stop.signal } as const;
  const running = labExec(host, ['sh', '-c', script], options);
  const began = new Promise((resolve) => running.stdout!.once('data', resolve));
  await Promise.race([began, running]);
  try {
    return await work();
  } finally {
    stop.abort();
    await running;
  }
}

describe('A domain', () => {
  let guest: Guest;
  let counted: number;

  useLab({ ...fastWan, libvirt: '9.0' });

  beforeAll(async () => {
    guest = await startDomain('vm1', {
      libvirt: {
        devices: `<disk type='file' device='cdrom'>
          <driver name='qemu' type='raw'/><target dev='sda' bus='sata'/><readonly/></disk>`,
      },
    });
  }, 300_000);

  beforeEach(async () => {
    counted = await guest.count();
  });

  it('is refused when the destination has another disk under the image’s name, or none, or one in use', {
    timeout,
  }, async () => {
    const other = join(labPaths.shared(), 'other.img');
    await copyFile(image(), other);
    await labExec(guest.otherHost, ['sh', '-c', `dd if=/dev/urandom of=${other} bs=4096 count=1 conv=notrunc`]);
    await labExec(guest.otherHost, ['mount', '--bind', other, image()]);
    expect(await refusals(guest, unsafe)).toEqual(['VMMIG_DISK_DIFFERENT']);
    const { report } = await guest.begin(unsafe).ended;
    expect(report).toMatchObject({ result: 'refused', vmLocation: 'source' });
    await labExec(guest.otherHost, ['umount', image()]);
    await labExec(guest.otherHost, ['mount', '-t', 'tmpfs', 'none', labPaths.shared()]);
    expect(await refusals(guest, unsafe)).toEqual(['VMMIG_DISK_IMAGE']);
    await labExec(guest.otherHost, ['umount', labPaths.shared()]);
    const writer = `exec 3<>${image()}; echo open; exec sleep 300`;
    const found = await during(guest.otherHost, writer, () => refusals(guest, unsafe));
    expect(found).toEqual(['VMMIG_DISK_IN_USE']);
    expect(await refusals(guest, unsafe)).toEqual([]);
    await expectToRunOnce(guest, counted);
  });

  it.runIf(isFull)(
    'is refused while its drive has a medium that the destination does not have',
    {
      timeout,
    },
    async () => {
      await labExec(guest.host, ['truncate', '-s', '1M', '/run/medium.iso']);
      await virsh(guest.host, ['change-media', 'vm1', 'sda', '/run/medium.iso', '--insert', '--live']);
      expect(await refusals(guest, unsafe)).toEqual(['VMMIG_DISK_IMAGE']);
      await virsh(guest.host, ['change-media', 'vm1', 'sda', '--eject', '--live', '--force']);
      expect(await refusals(guest, unsafe)).toEqual([]);
      await expectToRunOnce(guest, counted);
    },
  );

  it.runIf(isFull)(
    'is refused while a disk of it is being copied, and while it has snapshots',
    {
      timeout,
    },
    async () => {
      const copy = ['--dest', '/run/copy.img', '--format', 'raw', '--transient-job', '--bandwidth', '1'];
      await virsh(guest.host, ['blockcopy', 'vm1', 'vda', ...copy]);
      expect(await refusals(guest, unsafe)).toContain('VMMIG_DOMAIN_BUSY');
      await virsh(guest.host, ['blockjob', 'vm1', 'vda', '--abort']);
      const path = join(labPaths.shared(), 'snapshot.xml');
      const disks = `<memory snapshot='internal'/><disks><disk name='vda' snapshot='internal'/></disks>`;
      const domain = await virsh(guest.host, ['dumpxml', '--migratable', 'vm1']);
      await writeFile(
        path,
        `<domainsnapshot><name>s1</name><state>running</state><creationTime>1</creationTime>${disks}${domain}</domainsnapshot>`,
      );
      await virsh(guest.host, ['snapshot-create', 'vm1', path, '--redefine']);
      expect(await refusals(guest, unsafe)).toEqual(['VMMIG_DOMAIN_SNAPSHOT']);
      await virsh(guest.host, ['snapshot-delete', 'vm1', 's1', '--metadata']);
      expect(await refusals(guest, unsafe)).toEqual([]);
      await expectToRunOnce(guest, counted);
    },
  );

  it.runIf(isFull)('is refused while virsh is moving it', { timeout }, async () => {
    await setWan(slowWan);
    const migrate = `virsh migrate --live --unsafe vm1 qemu+ssh://${guest.otherHost}/system & pid=$!
      until virsh domjobinfo vm1 | grep -q 'Memory processed'; do sleep 0.1; done; echo begun; wait $pid`;
    const found = await during(guest.host, migrate, async () => {
      const found = await refusals(guest, unsafe);
      await virsh(guest.host, ['domjobabort', 'vm1']);
      return found;
    });
    expect(found).toContain('VMMIG_DOMAIN_BUSY');
    await expectToRunOnce(guest, counted);
    await setWan(fastWan);
  });

  it.runIf(isFull)('is refused when it is paused', { timeout }, async () => {
    await virsh(guest.host, ['suspend', 'vm1']);
    expect(await refusals(guest, unsafe)).toContain('VMMIG_GUEST_NOT_RUNNING');
    await virsh(guest.host, ['resume', 'vm1']);
    await expectToRunOnce(guest, counted);
  });

  it.runIf(isFull).each(['source', 'destination'] as const)(
    'stays where it is when the daemon of the %s is restarted in the middle',
    { timeout },
    async (which) => {
      await setWan(slowWan);
      const move = guest.begin(unsafe, '--no-agent');
      await move.untilPagesMove();
      const host = which === 'source' ? guest.host : guest.otherHost;
      await killDaemon(host);
      await startDaemon(host);
      const { report, stderr } = await move.ended;
      expect(report, stderr).toMatchObject({ result: 'failed', vmLocation: 'source' });
      await setWan(fastWan);
      await expectToRunOnce(guest, counted);
    },
  );

  it.runIf(isFull)('can be moved after all that', { timeout }, async () => {
    await guest.teleport(unsafe, '--persistent');
    await expectQuiet();
  });

  it.runIf(isFull)('is refused when it is shut off', { timeout }, async () => {
    await virsh(guest.host, ['destroy', 'vm1']);
    expect(await refusals(guest, unsafe)).toEqual(['VMMIG_GUEST_NOT_RUNNING']);
  });
});
