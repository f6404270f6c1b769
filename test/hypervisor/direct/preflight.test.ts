import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { checkUserfaultfd, type UserfaultfdFacts } from '../../../hypervisor/direct/preflight/userfaultfd.js';
import {
  checkDestination,
  checkSource,
  checkSwitch,
  type DestinationPlan,
  deriveCommandLine,
  type Finding,
  type GuestInspection,
  inspectGuest,
} from '../../../hypervisor/index.js';
import { binaryOf, type Guest, tinyMachine, versions, Workshop } from '../qemu.js';

const MiB = 1024 ** 2;
let workshop: Workshop;
let source: Guest;
let inspection: GuestInspection;

beforeEach(async () => {
  workshop = await Workshop.open();
  await writeFile(workshop.file('disk.img'), '');
  await truncate(workshop.file('disk.img'), 2 * MiB);
  source = await workshop.start('7.2', 'a', [
    ...tinyMachine,
    // QEMU 7.2 under TCG keeps its dirty log right only when memory is no multiple of 256 KiB.
    ...['-m', 'size=65544K'],
    '-drive',
    `file=${workshop.file('disk.img')},format=raw,if=virtio`,
  ]);
  inspection = await inspectGuest({ name: 'vm1', qmpPath: source.qmpPath, qmp: source.qmp });
});
afterEach(() => workshop[Symbol.asyncDispose]());

/** A destination on this very host: everything is there, under other names where it must be. */
function plan(overrides: Partial<DestinationPlan> = {}, extra: string[] = []): DestinationPlan {
  const qmpPath = workshop.file('b.qmp');
  const replacements = [[source.qmpPath, qmpPath]] as const;
  return {
    commandLine: deriveCommandLine(
      { ...inspection.process, machineType: inspection.machineType },
      { replacements, extra },
    ),
    machineType: inspection.machineType,
    accelerator: inspection.accelerator,
    sourceVersion: inspection.qemuVersion,
    ramBlocks: inspection.memory.blocks,
    disks: inspection.disks.map(({ imagePath, format, sizeBytes, imageInode }) => ({
      ...{ path: imagePath!, format: format!, sizeBytes },
      sourceInode: imageInode,
    })),
    qmpPath,
    runDirectory: workshop.file('run'),
    ...overrides,
  };
}

const told = (findings: readonly Finding[]): string[] => findings.map(({ severity, code }) => `${severity} ${code}`);
const withArgv0 = (binary: string): Partial<DestinationPlan> => {
  const { commandLine } = plan();
  return { commandLine: { ...commandLine, argv: [binary, ...commandLine.argv.slice(1)] } };
};

describe('the destination', () => {
  test('that has everything is found fault with in nothing', async () => {
    expect(await checkDestination(plan())).toEqual([]);
    expect(await checkDestination(JSON.parse(JSON.stringify(plan())) as DestinationPlan)).toEqual([]);
  });

  test('hears of everything at once', async () => {
    const findings = await checkDestination(
      plan(
        { machineType: 'pc-q35-99.0', disks: [{ path: '/no.img', format: 'raw', sizeBytes: 1, sourceInode: null }] },
        [...['-kernel', '/no/kernel', '-snapshot', '-serial', 'unix:/no/dir/s.sock,server=on']],
      ),
    );
    expect(told(findings).sort()).toEqual([
      'refuse VMMIG_COMMAND_LINE',
      'refuse VMMIG_DESTINATION_PATH',
      'refuse VMMIG_DESTINATION_PATH',
      'refuse VMMIG_DESTINATION_QEMU',
      'refuse VMMIG_DISK_IMAGE',
    ]);
    for (const { message, remedy } of findings) expect(message && remedy).toBeTruthy();
  });

  test('does not take a memory file that may be a running guest', async () => {
    const memoryIn = (path: string) =>
      checkDestination(plan({}, ['-object', `memory-backend-file,id=more,size=1M,mem-path=${path},share=on`]));
    const directory = await mkdtemp('/var/tmp/vmmig-preflight-');
    try {
      const path = join(directory, 'vm.ram');
      expect(await memoryIn(path)).toEqual([]);
      await writeFile(path, '');
      await truncate(path, MiB);
      expect(await memoryIn(path)).toEqual([]);
      await writeFile(path, Buffer.alloc(MiB, 1));
      expect((await memoryIn(path)).map(({ message }) => message)).toEqual([
        expect.stringMatching(/^memory file .*vm\.ram holds data, and lies where other hosts may see it/),
      ]);
      const script = `import mmap,time; f=open('${path}','r+'); m=mmap.mmap(f.fileno(),0); print('on',flush=True); time.sleep(60)`;
      const user = execa('python3', ['-c', script]);
      user.catch(() => {});
      try {
        await once(user.stdout, 'data');
        expect((await memoryIn(path)).map(({ message }) => message)).toEqual([
          `memory file ${path} is in use: process ${user.pid} has mapped it`,
        ]);
      } finally {
        user.kill('SIGKILL');
      }
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });

  test('needs a QEMU that runs and is as new as the source', async () => {
    expect(told(await checkDestination(plan(withArgv0('/no/such/qemu'))))).toEqual(['refuse VMMIG_DESTINATION_QEMU']);
    expect(told(await checkDestination(plan(withArgv0('/bin/true'))))).toEqual([
      'refuse VMMIG_DESTINATION_QEMU',
      'refuse VMMIG_DESTINATION_QEMU',
    ]);
    expect(told(await checkDestination(plan({ sourceVersion: { major: 10, minor: 0 } })))).toEqual([
      'warn VMMIG_DESTINATION_QEMU',
    ]);
    expect(await checkDestination(plan(withArgv0(await binaryOf('10.0'))))).toEqual([]);
  });

  test.each(versions)('with QEMU %s knows the machine types of its version', async (version) => {
    const machineType = `pc-i440fx-${version}`;
    expect(await checkDestination(plan({ ...withArgv0(await binaryOf(version)), machineType }))).toEqual([]);
  });

  test('needs images of the right size, and is warned where they are other files', async () => {
    const { disks } = plan();
    const other = { ...disks[0]!, sizeBytes: disks[0]!.sizeBytes + 512 };
    expect(told(await checkDestination(plan({ disks: [other] })))).toEqual(['refuse VMMIG_DISK_IMAGE']);
    const replica = { ...disks[0]!, sourceInode: 1 };
    expect(told(await checkDestination(plan({ disks: [replica] })))).toEqual(['warn VMMIG_DISK_IMAGE']);
    await truncate(workshop.file('disk.img'), 2 * MiB - 100);
    expect(await checkDestination(plan()), 'QEMU rounds up to whole sectors').toEqual([]);
  });

  test('reads images that are not raw through qemu-nbd, and is warned where it cannot', async () => {
    const path = workshop.file('disk.qcow2');
    await execa('qemu-img', ['create', '-qf', 'qcow2', path, '2M']);
    const disk = { path, format: 'qcow2', sizeBytes: 2 * MiB, sourceInode: null };
    const judge = async (overrides: object) =>
      told(await checkDestination(plan({ disks: [{ ...disk, ...overrides }] })));
    expect(await judge({})).toEqual([]);
    expect(await judge({ sizeBytes: 3 * MiB })).toEqual(['refuse VMMIG_DISK_IMAGE']);
    expect(await judge({ path: '/no.qcow2' })).toEqual(['refuse VMMIG_DISK_IMAGE']);
    expect(await judge({ path: workshop.file('disk.img') }), 'no qcow2').toEqual(['refuse VMMIG_DISK_IMAGE']);
    expect(await judge({ path: `nbd+unix:///?socket=${workshop.file('none')}` })).toEqual(['warn VMMIG_DISK_IMAGE']);
    expect(await judge({ isEncrypted: true })).toEqual([]);
    expect(await judge({ sourceInode: 1 })).toEqual(['warn VMMIG_DISK_IMAGE']);
  });

  test('is told that qemu-nbd is missing', async () => {
    const path = workshop.file('disk.qcow2');
    await execa('qemu-img', ['create', '-qf', 'qcow2', path, '2M']);
    await mkdir(workshop.file('bin'));
    for (const tool of ['sh', 'setpriv']) await symlink(`/usr/bin/${tool}`, workshop.file(`bin/${tool}`));
    vi.stubEnv('PATH', workshop.file('bin'));
    try {
      const disks = [{ path, format: 'qcow2', sizeBytes: 2 * MiB, sourceInode: null }];
      const findings = await checkDestination(plan({ ...withArgv0(await binaryOf('10.0')), disks }));
      expect(findings.filter(({ code }) => code === 'VMMIG_DISK_IMAGE')).toMatchObject([
        {
          severity: 'warn',
          message: expect.stringMatching(/needs qemu-nbd/),
          remedy: expect.stringMatching(/qemu-utils/),
        },
      ]);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  test('needs its sockets and ports for itself', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    try {
      const { port } = server.address() as { port: number };
      const extra = ['-monitor', `unix:${source.qmpPath},server=on`, '-serial', `tcp:127.0.0.1:${port},server=on`];
      const findings = await checkDestination(plan({}, extra));
      expect(findings.map(({ message }) => message)).toEqual([
        expect.stringContaining(`listens on ${source.qmpPath}`),
        expect.stringContaining(`port ${port}`),
      ]);
      const clash = { commandLine: deriveCommandLine({ ...inspection.process, machineType: inspection.machineType }) };
      expect(told(await checkDestination(plan({ ...clash, qmpPath: source.qmpPath })))).toEqual([
        'refuse VMMIG_DESTINATION_ADDRESS',
      ]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  test('needs a command line that opens the monitor', async () => {
    const findings = await checkDestination(plan({ qmpPath: '/run/elsewhere.qmp' }));
    expect(findings).toMatchObject([
      { code: 'VMMIG_DESTINATION_ADDRESS', message: expect.stringContaining('/run/elsewhere.qmp') },
    ]);
  });

  test('needs memory, of the kind that the guest has', async () => {
    const ram = { name: 'pc.ram', pageSizeBytes: 4096, usedBytes: 2 ** 50, totalBytes: 2 ** 50 };
    expect(told(await checkDestination(plan({ ramBlocks: [ram] })))).toEqual(['refuse VMMIG_DESTINATION_MEMORY']);
    const huge = { ...ram, pageSizeBytes: 2 * MiB, usedBytes: 2 ** 40 };
    expect(await checkDestination(plan({ ramBlocks: [huge] }))).toMatchObject([
      { message: expect.stringContaining('2048 KiB') },
    ]);
  });

  test('needs the working directory where paths are relative to it, and a place for files of its own', async () => {
    await mkdir(workshop.file('run'));
    const { commandLine } = plan();
    const gone = {
      commandLine: { ...commandLine, cwd: '/no/such/directory', cwdRequired: true },
      runDirectory: '/no/run/vmmig',
    };
    expect(told(await checkDestination(plan(gone)))).toEqual([
      'refuse VMMIG_DESTINATION_PATH',
      'refuse VMMIG_DESTINATION_PATH',
    ]);
    const findings = await checkDestination(plan({ stateDirectory: '/no/state/vmmig' }));
    expect(findings.map(({ message }) => message)).toEqual([
      '/no/state/vmmig cannot be made: /no/state does not exist',
    ]);
  });

  test('has no fewer processors than the guest because it makes one to compare', async () => {
    const two = await workshop.start('10.0', 'two', [...tinyMachine, '-cpu', 'qemu64', '-smp', '2']);
    const { cpuFeatures, qemuVersion } = await inspectGuest({ name: 'vm2', qmpPath: two.qmpPath, qmp: two.qmp });
    const ht = 1 << 28;
    expect(cpuFeatures.some(({ leaf, register, bits }) => leaf === 1 && register === 'EDX' && bits & ht)).toBe(true);
    const findings = await checkDestination(plan({ cpuFeatures, sourceVersion: qemuVersion }, ['-cpu', 'qemu64']));
    expect(findings.filter(({ code }) => code === 'VMMIG_CPU_MODEL')).toEqual([]);
  });

  test("needs a processor that can do what the guest's can", async () => {
    const newer = await workshop.start('10.0', 'c', [...tinyMachine, '-m', 'size=65544K', '-cpu', 'max']);
    const { cpuFeatures, qemuVersion } = await inspectGuest({ name: 'vm2', qmpPath: newer.qmpPath, qmp: newer.qmp });
    const here = (changes: Partial<DestinationPlan>) =>
      checkDestination(plan({ cpuFeatures, sourceVersion: qemuVersion, ...changes }, ['-cpu', 'max']));
    const told = (await here({})).filter(({ code }) => code === 'VMMIG_CPU_MODEL');
    expect(told).toMatchObject([{ severity: 'refuse', remedy: expect.stringContaining('-cpu') }]);
    expect(told[0]!.message).toMatch(/^the guest's CPU has what this host's cannot give it: .*cmpccxadd/);
    // Its own is no less than itself, whatever its version is said to be.
    expect(await here({ cpuFeatures: inspection.cpuFeatures })).not.toContainEqual(
      expect.objectContaining({ code: 'VMMIG_CPU_MODEL' }),
    );
    // TCG's is the same on every host.
    expect(await here({ sourceVersion: inspection.qemuVersion })).toEqual([]);
    expect(inspection.cpuFeatures.length).toBeGreaterThan(10);
    expect(inspection.cpuFeatures).toContainEqual(
      expect.objectContaining({ leaf: 1, subleaf: 0, register: 'EDX', bits: expect.any(Number) }),
    );
    const unknown = plan({ cpuFeatures, sourceVersion: qemuVersion }, ['-cpu', 'no-such-cpu']);
    expect((await checkDestination(unknown)).map(({ message }) => message)).toContainEqual(
      expect.stringMatching(/^QEMU cannot make the guest's CPU on this host: .*no-such-cpu/),
    );
  });

  test('stops checking when the signal is aborted', async () => {
    await expect(checkDestination(plan(), { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
      'enough',
    );
  });

  test('is not changed by checking', async () => {
    const before = await readdir(workshop.path);
    await checkDestination(plan());
    expect(await readdir(workshop.path)).toEqual(before);
  });
});

describe('the source', () => {
  const judged = (changes: Partial<GuestInspection>): string[] => told(checkSource({ ...inspection, ...changes }));

  test('that can go is found fault with in nothing', () => expect(checkSource(inspection)).toEqual([]));

  test('must run, and not be on its way already', async () => {
    await source.qmp.execute('stop');
    const paused = await inspectGuest({ name: 'vm1', qmpPath: source.qmpPath, qmp: source.qmp });
    expect(checkSource(paused)).toMatchObject([
      { code: 'VMMIG_GUEST_NOT_RUNNING', remedy: expect.stringContaining('cont') },
    ]);
    expect(judged({ migration: { status: 'active', blockers: [] } })).toEqual(['refuse VMMIG_MIGRATION_RUNNING']);
    expect(judged({ running: false, runState: 'shutdown' })).toEqual(['refuse VMMIG_GUEST_NOT_RUNNING']);
  });

  test('must not have what QEMU does not migrate', () => {
    expect(judged({ migration: { status: 'none', blockers: ['first', 'second'] } })).toEqual([
      'refuse VMMIG_MIGRATION_BLOCKED',
      'refuse VMMIG_MIGRATION_BLOCKED',
    ]);
  });

  test('must have a dirty log that can be trusted', () => {
    const [ram, ...others] = inspection.memory.blocks;
    const aligned = { ...inspection.memory, blocks: [{ ...ram!, usedBytes: 64 * MiB }, ...others] };
    expect(judged({ memory: aligned })).toEqual(['refuse VMMIG_DIRTY_LOG']);
    expect(judged({ memory: aligned, accelerator: 'kvm' })).toEqual([]);
    expect(judged({ memory: aligned, qemuVersion: { ...inspection.qemuVersion, major: 9 } })).toEqual([]);
  });

  test('had better not depend on devices and CPUs of its host, or on images that cannot be read', () => {
    expect(judged({ deviceTypes: ['vfio-pci', 'virtio-net-pci', 'vhost-user-fs-pci'] })).toEqual([
      'warn VMMIG_HOST_DEVICE',
      'warn VMMIG_HOST_DEVICE',
    ]);
    expect(judged({ accelerator: 'kvm', cpuType: 'host-x86_64-cpu' })).toEqual(['warn VMMIG_CPU_MODEL']);
    expect(judged({ accelerator: 'kvm', cpuType: 'Skylake-Server-x86_64-cpu' })).toEqual([]);
    const [disk] = inspection.disks;
    expect(judged({ disks: [{ ...disk!, format: 'qcow2' }] })).toEqual([]);
    expect(judged({ disks: [{ ...disk!, imagePath: null, imageUri: 'nbd://host/vm1' }] })).toEqual([]);
    for (const unreadable of [{ format: 'quorum' }, { format: 'qcow2', isEncrypted: true }, { imagePath: null }])
      expect(judged({ disks: [{ ...disk!, ...unreadable }] })).toEqual(['warn VMMIG_DISK_IMAGE']);
    expect(judged({ disks: [{ ...disk!, format: 'quorum', removable: true }] })).toEqual([]);
    expect(judged({ disks: [{ ...disk!, format: null, imagePath: null, removable: true }] })).toEqual([]);
  });
});

describe('a guest that is to run before its memory is there', () => {
  const withArguments = (...more: string[]) =>
    checkSwitch({ ...inspection, process: { ...inspection.process, argv: [...inspection.process.argv, ...more] } });

  test('is found fault with in nothing when it is an ordinary one', () => expect(checkSwitch(inspection)).toEqual([]));

  test('must have no device that reaches its memory without QEMU', () => {
    const deviceTypes = ['vfio-pci', 'virtio-net-pci', 'vhost-user-fs-pci'];
    expect(told(checkSwitch({ ...inspection, deviceTypes }))).toEqual([
      'refuse VMMIG_SWITCH_DEVICE',
      'refuse VMMIG_SWITCH_DEVICE',
    ]);
    expect(told(withArguments('-netdev', 'vhost-user,id=n0,chardev=c0'))).toEqual(['refuse VMMIG_SWITCH_DEVICE']);
    expect(told(withArguments('-netdev', '{"type":"vhost-vdpa","id":"n0"}'))).toEqual(['refuse VMMIG_SWITCH_DEVICE']);
    expect(withArguments('-netdev', 'tap,id=n0,vhost=on')).toEqual([]);
  });

  test('must have memory that can be brought page by page', () => {
    const backend = 'memory-backend-file,id=m0,mem-path=/dev/pmem0,size=1G';
    expect(told(withArguments('-object', `${backend},pmem=on`))).toEqual(['refuse VMMIG_SWITCH_MEMORY']);
    expect(withArguments('-object', `${backend},pmem=off`)).toEqual([]);
    const [ram, ...others] = inspection.memory.blocks;
    const inPagesOf = (pageSizeBytes: number) =>
      told(
        checkSwitch({
          ...inspection,
          memory: { ...inspection.memory, blocks: [{ ...ram!, pageSizeBytes }, ...others] },
        }),
      );
    expect(inPagesOf(1024 * MiB)).toEqual(['refuse VMMIG_SWITCH_MEMORY']);
    expect(inPagesOf(2 * MiB)).toEqual([]);
  });

  test('needs a QEMU that may use userfaultfd on the destination', async () => {
    const ordinary: UserfaultfdFacts = { unprivileged: false, kernel: [6, 1], isPrivileged: false, hasDevice: false };
    const judged = async (facts: Partial<UserfaultfdFacts>, extra: string[] = [], binary?: string) => {
      const wanted = plan({ postcopy: true, ...(binary === undefined ? {} : withArgv0(binary)) }, extra);
      return told(await checkUserfaultfd(wanted, { ...ordinary, ...facts }));
    };
    const refused = ['refuse VMMIG_USERFAULTFD'];
    expect(await judged({})).toEqual(refused);
    expect(await judged({ isPrivileged: true })).toEqual([]);
    expect(await judged({ isPrivileged: true }, ['-runas', 'nobody'])).toEqual(refused);
    expect(await judged({ unprivileged: true }, ['-runas', 'nobody'])).toEqual([]);
    expect(await judged({ hasDevice: true }), 'QEMU 7.2 does not know the device').toEqual(refused);
    expect(await judged({ hasDevice: true }, [], await binaryOf('10.0'))).toEqual([]);
    expect(await judged({ unprivileged: null, isPrivileged: true }), 'a kernel without it').toEqual(refused);
    expect(await judged({ unprivileged: null, kernel: [4, 19] })).toEqual([]);
    expect(await checkUserfaultfd(plan(), ordinary), 'a teleport does not need it').toEqual([]);
  });

  test('can run on this host, as these tests do', async () => {
    expect(await checkDestination(plan({ postcopy: true }))).toEqual([]);
  });
});
