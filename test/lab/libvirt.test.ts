import { chmod, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import {
  domainPid,
  type HostName,
  hostNames,
  labDown,
  labExec,
  labGuestShell,
  labGuestStart,
  labPaths,
  labStatus,
  labUp,
  networks,
  pathInMember,
  virsh,
} from '../../lab/index.js';
import { useOwnLab } from './temporary.js';

let directory: Awaited<ReturnType<typeof useOwnLab>>;

beforeAll(async () => {
  directory = await useOwnLab();
  // A QEMU that is not root has to get to its disks.
  await chmod(directory.path, 0o711);
  await labUp({ rttMs: 1, rateBps: 1e9, libvirt: '9.0' });
});

afterAll(async () => {
  await labDown();
  await directory[Symbol.asyncDispose]();
});

const otherHost = { hostA: 'hostB', hostB: 'hostA' } as const;

async function domains(host: HostName): Promise<string> {
  return (await virsh(host, ['list', '--all'])).replace(/\s+/g, ' ');
}

describe('libvirt in the lab', () => {
  it('is told by the status, and left alone by another "up"', async () => {
    const pid = await readFile(pathInMember('hostA', '/run/libvirtd.pid'), 'utf8');
    expect(await labUp()).toMatchObject({ libvirt: '9.0' });
    expect(await labStatus()).toMatchObject({ condition: 'up', state: { libvirt: '9.0' } });
    expect(await readFile(pathInMember('hostA', '/run/libvirtd.pid'), 'utf8')).toBe(pid);
  });

  it('is another one on each host, reached as qemu:///system', async () => {
    const uuid = async (host: HostName) => /<uuid>(.*)<\/uuid>/.exec(await virsh(host, ['capabilities']))?.[1];
    expect(await uuid('hostA')).not.toBe(await uuid('hostB'));
    for (const host of hostNames) {
      expect(await virsh(host, ['uri'])).toBe('qemu:///system');
      expect(await virsh(host, ['hostname'])).toBe(host);
      expect(await domains(host)).toBe('');
    }
  });

  it.each(hostNames)('is reached from %s over SSH, by the name of the other host', async (host) => {
    const other = otherHost[host];
    expect(await virsh(host, ['-c', `qemu+ssh://${other}/system`, 'hostname'])).toBe(other);
  });

  it('does not connect to a host whose key is not known', async () => {
    const connect = virsh('hostA', ['-c', `qemu+ssh://root@${networks.hostB.address}/system`, 'hostname']);
    await expect(connect).rejects.toThrow(/Host key verification failed/);
  });
});

describe('a domain of the lab', () => {
  it('is moved by virsh, there and back, without a stale page', { timeout: 180_000 }, async () => {
    const data = { contents: 'random', filesMiB: 8, freeMiB: 32 } as const;
    await labGuestStart('vm1', 'hostA', { memoryMiB: 192, libvirt: true, data });
    {
      await using shell = await labGuestShell('vm1', 'hostA');
      await shell.output('pattern start 8 4000');
    }
    for (const from of ['hostA', 'hostB'] as const) {
      const to = otherHost[from];
      await virsh(from, ['migrate', '--live', '--unsafe', '--persistent', 'vm1', `qemu+ssh://${to}/system`]);
      expect(await domains(from)).toBe('- vm1 shut off');
      expect(await domains(to)).toMatch(/^\d+ vm1 running$/);
      await using shell = await labGuestShell('vm1', to);
      const passes = Number(/passes (\d+)/.exec(await shell.output('pattern status'))![1]);
      await expect
        .poll(() => shell.output('pattern status'), { timeout: 60_000, interval: 300 })
        .toMatch(new RegExp(`passes ${passes + 2} errors 0`));
      expect(await shell.output('checksum')).toBe('checked 1 failed 0');
    }
    expect(await domainPid('vm1', 'hostA')).toBeGreaterThan(0);
    expect(Object.keys(parse(await readFile(labPaths.inventory(), 'utf8')).guests)).toEqual([]);
    await virsh('hostA', ['destroy', 'vm1']);
  });

  it('may run as the user that Debian gives QEMU, with its memory shared', { timeout: 180_000 }, async () => {
    const libvirt = { user: 'libvirt-qemu', memory: 'memfd' } as const;
    const data = { contents: 'random', filesMiB: 8, freeMiB: 32 } as const;
    const { pid } = await labGuestStart('vm2', 'hostB', { memoryMiB: 192, libvirt, data });
    const { stdout: uid } = await labExec('hostB', ['id', '-u', 'libvirt-qemu']);
    expect(await readFile(`/proc/${pid}/status`, 'utf8')).toMatch(new RegExp(`^Uid:\\s+${uid}\\s`, 'm'));
    expect(await readFile(`/proc/${pid}/smaps`, 'utf8')).toMatch(/memfd:memory-backend-memfd/);
    expect((await stat(join(labPaths.shared(), 'vm2-data.img'))).uid).toBe(Number(uid));
    await using shell = await labGuestShell('vm2', 'hostB');
    expect(await shell.output('checksum')).toBe('checked 1 failed 0');
  });

  it('takes no arguments for QEMU', async () => {
    const start = labGuestStart('vm3', 'hostA', { libvirt: true, extraArgs: ['-no-hpet'] });
    await expect(start).rejects.toMatchObject({ code: 'VMMIG_LAB_UNSUPPORTED' });
  });
});

describe('raising and removing', () => {
  it('repairs a lab that lost a daemon', async () => {
    await labExec('hostB', ['sh', '-c', 'kill -KILL $(cat /run/libvirtd.pid)']);
    await expect.poll(async () => (await labStatus()).condition).toBe('broken');
    await labUp();
    expect(await virsh('hostA', ['-c', 'qemu+ssh://hostB/system', 'hostname'])).toBe('hostB');
    expect(await domains('hostB')).toBe('');
  });

  const isFull = Boolean(process.env.VMMIG_TEST_FULL);
  it.skipIf(!isFull)('changes to another libvirt, which compresses', { timeout: 300_000 }, async () => {
    await labUp({ libvirt: '11.3' });
    expect(await virsh('hostA', ['version', '--daemon'])).toContain('Running against daemon: 11.3');
    await labGuestStart('vm1', 'hostA', { memoryMiB: 192, libvirt: true });
    const compressed = ['--parallel', '--compressed', '--comp-methods', 'zstd'];
    await virsh('hostA', ['migrate', '--live', '--unsafe', ...compressed, 'vm1', 'qemu+ssh://hostB/system']);
    await using shell = await labGuestShell('vm1', 'hostB');
    expect(await shell.output('hostname')).toBe('tiny');
  });

  it('removes every trace', async () => {
    await labDown();
    expect((await labStatus()).condition).toBe('down');
    const { stdout } = await execa('ps', ['-e', '-o', 'args=']);
    expect(stdout).not.toContain(directory.path);
    expect(await readFile('/proc/self/mounts', 'utf8')).not.toContain(directory.path);
  });
});
