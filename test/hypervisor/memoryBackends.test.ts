import { open, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { isInFiles, type MemoryBackendFile, memoryBackends } from '../../hypervisor/index.js';
import { type Guest, tinyMachine, versions, Workshop } from './qemu.js';

const MiB = 1024 ** 2;
let workshop: Workshop;

beforeEach(async () => {
  workshop = await Workshop.open();
});
afterEach(() => workshop[Symbol.asyncDispose]());

const plain = ['-accel', 'tcg', '-display', 'none', '-nodefaults'];
const file = (id: string, megabytes: number, path: string, more = ''): string[] => [
  '-object',
  `memory-backend-file,id=${id},size=${megabytes}M,mem-path=${path},share=on${more}`,
];

async function backendOf(guest: Guest, block: string): Promise<MemoryBackendFile | undefined> {
  return (await memoryBackends(guest.qmp, guest.process)).find((one) => one.block === block);
}

/** Whether guest memory at an address is what the file has where it should be: written by QEMU, read from the file. */
async function expectInFile(guest: Guest, gpa: number, backend: MemoryBackendFile, blockOffset: number): Promise<void> {
  await guest.qmp.execute('stop');
  const filename = workshop.file('dump');
  await guest.qmp.execute('pmemsave', { val: gpa, size: 65536, filename });
  const handle = await open(backend.path!);
  try {
    const bytes = Buffer.alloc(65536);
    await handle.read(bytes, 0, bytes.length, backend.fileOffset + blockOffset);
    expect(bytes.equals(await readFile(filename))).toBe(true);
    expect(bytes.some((byte) => byte !== 0)).toBe(true);
  } finally {
    await handle.close();
  }
}

describe.each(versions)('with QEMU %s', (version) => {
  test('finds the file that holds all of the guest', async () => {
    const path = workshop.file('ram');
    const guest = await workshop.start(version, 'vm1', [
      ...plain,
      ...['-machine', 'q35,memory-backend=m0', '-m', '64', '-vga', 'std', ...file('m0', 64, path)],
    ]);
    const backend = (await backendOf(guest, 'm0'))!;
    expect(backend).toEqual({
      ...{ block: 'm0', lengthBytes: 64 * MiB, path, fileOffset: 0, pageSizeBytes: 4096 },
      ...{ shared: true, kind: 'file', pmem: false, leftOut: true },
    });
    expect(await backendOf(guest, 'pc.bios')).toMatchObject({ shared: false, path: null, kind: 'anonymous' });
    await new Promise((resolve) => setTimeout(resolve, 300)); // The firmware copies itself into RAM.
    await expectInFile(guest, 0xf0000, backend, 0xf0000);
  });

  test('opens through QEMU a file that has been removed or replaced, or never had a name of its own', async () => {
    const [removed, replaced] = [workshop.file('removed'), workshop.file('replaced')];
    const guest = await workshop.start(version, 'vm1', [
      ...plain,
      ...['-machine', 'q35', '-m', '48M', ...file('m0', 16, removed), ...file('m1', 16, replaced)],
      ...file('m2', 16, workshop.path),
      ...[0, 1, 2].flatMap((node) => ['-numa', `node,nodeid=${node},memdev=m${node}`]),
    ]);
    await rm(removed);
    await rename(replaced, workshop.file('elsewhere'));
    await writeFile(replaced, Buffer.alloc(16 * MiB));
    const found = (await memoryBackends(guest.qmp, guest.process)).filter(({ block }) => /^m\d$/.test(block));
    expect(found).toHaveLength(3);
    for (const backend of found) {
      expect(backend).toMatchObject({ shared: true, kind: 'file', leftOut: true });
      expect(backend.path).toMatch(new RegExp(`^/proc/${guest.process.pid}/fd/\\d+$`));
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
    await expectInFile(guest, 0xf0000, found.find(({ block }) => block === 'm0')!, 0xf0000);
  });

  test('tells several memfds of one size apart', async () => {
    const memfd = (id: string) => ['-object', `memory-backend-memfd,id=${id},size=32M,share=on`];
    const guest = await workshop.start(version, 'vm1', [
      ...plain,
      ...['-machine', 'q35', '-m', '64M', ...memfd('a'), ...memfd('b')],
      ...['-numa', 'node,memdev=b', '-numa', 'node,memdev=a'],
    ]);
    const [first, second] = [(await backendOf(guest, 'b'))!, (await backendOf(guest, 'a'))!];
    expect(first.path).not.toBe(second.path);
    for (const backend of [first, second])
      expect(backend).toMatchObject({ kind: 'memfd', shared: true, leftOut: version === '7.2', fileOffset: 0 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await expectInFile(guest, 0xf0000, first, 0xf0000);
  });

  test("knows libvirt's naming, and memory that is not shared", async () => {
    const path = workshop.file('pc.ram');
    const object = { 'qom-type': 'memory-backend-file', id: 'pc.ram', 'mem-path': path, size: 64 * MiB };
    const args = ['-machine', 'q35,memory-backend=pc.ram', '-m', '64', ...plain];
    const options = { share: true, 'x-use-canonical-path-for-ramblock-id': false };
    const shared = await workshop.start(version, 'vm1', [
      ...args,
      '-object',
      JSON.stringify({ ...object, ...options }),
    ]);
    expect(await backendOf(shared, 'pc.ram')).toMatchObject({ path, shared: true, kind: 'file', leftOut: true });
    const other = { ...object, share: false, 'mem-path': workshop.file('other') };
    const own = await workshop.start(version, 'vm2', [...args, '-object', JSON.stringify(other)]);
    expect(await backendOf(own, 'pc.ram')).toMatchObject({ shared: false, path: null, leftOut: false });
    const ordinary = await workshop.start(version, 'vm3', tinyMachine);
    expect(await backendOf(ordinary, 'pc.ram')).toMatchObject({ path: null, shared: false, kind: 'anonymous' });
  });

  test.runIf(version === '10.0')('finds a block that begins in the middle of its file', async () => {
    const path = workshop.file('ram');
    await writeFile(path, '');
    await truncate(path, 96 * MiB);
    const guest = await workshop.start(version, 'vm1', [
      ...plain,
      ...['-machine', 'q35,memory-backend=m0', '-m', '64', ...file('m0', 64, path, ',offset=32M')],
    ]);
    const backend = (await backendOf(guest, 'm0'))!;
    expect(backend).toMatchObject({ path, fileOffset: 32 * MiB, lengthBytes: 64 * MiB });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await expectInFile(guest, 0xf0000, backend, 0xf0000);
  });

  test('says whether all that QEMU would leave out of its stream is in files', async () => {
    const start = (name: string, backend: string) =>
      workshop.start(version, name, [
        ...[...plain, '-machine', 'q35,memory-backend=m0', '-m', '64'],
        ...['-object', `${backend},id=m0,size=64M,share=on`],
      ]);
    const verdict = async (guest: Guest) => isInFiles(await memoryBackends(guest.qmp, guest.process));
    expect(await verdict(await start('vm1', `memory-backend-file,mem-path=${workshop.file('ram')}`))).toBe(true);
    expect(await verdict(await start('vm2', 'memory-backend-memfd'))).toBe(version === '7.2');
    const anonymous = await start('vm3', 'memory-backend-ram');
    expect(await backendOf(anonymous, 'm0')).toMatchObject({ shared: true, leftOut: version === '7.2' });
    expect(await verdict(anonymous)).toBe(false);
  });

  test('names a block by its whole path where the backend does', async () => {
    const guest = await workshop.start(version, 'vm1', [
      ...plain,
      ...['-machine', 'q35,memory-backend=m0', '-m', '64'],
      ...file('m0', 64, workshop.file('ram'), ',x-use-canonical-path-for-ramblock-id=on'),
    ]);
    expect(await backendOf(guest, '/objects/m0')).toMatchObject({ path: workshop.file('ram'), leftOut: true });
  });
});
