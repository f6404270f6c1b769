import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { execa } from 'execa';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { type DiskImage, type DiskReader, type OpenDiskOptions, openDisk } from '../../disk/index.js';
import { Images, isAlive, KiB, MiB, qemuNbdsOf, Writer } from './images.js';

/** The longer it takes to open an image, the less often it is opened. */
const patiently = { timeout: 20_000 };
const cleanups: (() => Promise<unknown>)[] = [];
let images: Images;

beforeAll(async () => {
  images = await Images.open();
});
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  expect(await qemuNbdsOf(process.pid)).toEqual([]);
});
afterAll(() => images[Symbol.asyncDispose]());

async function opened(image: string | DiskImage, options?: OpenDiskOptions): Promise<DiskReader> {
  const disk = await openDisk(
    typeof image === 'string' ? { path: images.path(image), format: 'qcow2' } : image,
    options,
  );
  cleanups.push(async () => await disk[Symbol.asyncDispose]());
  return disk;
}

/** Reads all of it: in pieces as the relay does, many at a time. */
async function contentOf(disk: DiskReader, pieceBytes = 200 * KiB): Promise<Buffer> {
  const pieces: Promise<Buffer>[] = [];
  for (let at = 0; at < disk.lengthBytes; at += pieceBytes)
    pieces.push(disk.read(at, Math.min(pieceBytes, disk.lengthBytes - at)));
  return Buffer.concat(await Promise.all(pieces));
}

/** Compares without printing megabytes. */
function expectSame(actual: Buffer, expected: Buffer): void {
  expect(actual.length).toBe(expected.length);
  expect(actual.equals(expected)).toBe(true);
}

describe('a qcow2 image', () => {
  test('is read through a chain of three with relative paths, as the guest sees it', async () => {
    await mkdir(images.path('bases'), { recursive: true });
    await images.raw('bases/base.raw', 24 * MiB, [[0, 5 * MiB]]);
    await images.img('create', '-qf', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'bases/middle.qcow2');
    await images.io('bases/middle.qcow2', 'write -P 0x22 1M 3M', 'write -z 4M 64k');
    await images.img('create', '-qf', 'qcow2', '-b', 'bases/middle.qcow2', '-F', 'qcow2', 'chain.qcow2', '32M');
    await images.io('chain.qcow2', 'write -P 0x33 2M 100k', 'write -P 0x44 28M 4k');
    const disk = await opened('chain.qcow2');
    expect(disk).toMatchObject({ lengthBytes: 32 * MiB, direct: true });
    const content = await images.content('chain.qcow2', 'qcow2');
    expectSame(await contentOf(disk), content);
    for (let i = 0; i < 100; i++) {
      const lengthBytes = randomInt(1, 3 * MiB);
      const offset = randomInt(0, content.length - lengthBytes);
      expectSame(await disk.read(offset, lengthBytes), content.subarray(offset, offset + lengthBytes));
    }
  });

  test('may be compressed', async () => {
    await images.raw('plain.raw', 8 * MiB, [[MiB, 2 * MiB]]);
    await images.img('convert', '-cf', 'raw', '-O', 'qcow2', 'plain.raw', 'compressed.qcow2');
    expectSame(await contentOf(await opened('compressed.qcow2')), await readFile(images.path('plain.raw')));
  });

  test.each(['metadata', 'falloc', 'full'])('may be preallocated (%s)', async (preallocation) => {
    const name = `${preallocation}.qcow2`;
    await images.img('create', '-qf', 'qcow2', '-o', `preallocation=${preallocation}`, name, '8M');
    await images.io(name, 'write -P 0x55 1M 1M');
    expectSame(await contentOf(await opened(name)), await images.content(name, 'qcow2'));
  });

  test('may have snapshots inside: what is read is the present', async () => {
    await images.img('create', '-qf', 'qcow2', 'snapshots.qcow2', '8M');
    await images.io('snapshots.qcow2', 'write -P 1 0 2M');
    await images.img('snapshot', '-c', 'before', 'snapshots.qcow2');
    await images.io('snapshots.qcow2', 'write -P 2 1M 2M');
    const content = await contentOf(await opened('snapshots.qcow2'));
    expect([content[0], content[MiB], content[3 * MiB]]).toEqual([1, 2, 0]);
    expectSame(content, await images.content('snapshots.qcow2', 'qcow2'));
  });

  test('may have small clusters, subclusters and a size that is no multiple of anything', async () => {
    await images.img('create', '-qf', 'qcow2', '-o', 'cluster_size=512', 'small.qcow2', '5000000');
    await images.io('small.qcow2', ...[0, 1, 2, 3, 4].map((i) => `write -P ${i + 1} ${i * 1536} 512`));
    expectSame(await contentOf(await opened('small.qcow2')), await images.content('small.qcow2', 'qcow2'));
    await images.img('create', '-qf', 'qcow2', '-o', 'extended_l2=on,cluster_size=64k', 'sub.qcow2', '8M');
    await images.io('sub.qcow2', 'write -P 7 6k 2k', 'write -P 8 100k 300k');
    expectSame(await contentOf(await opened('sub.qcow2')), await images.content('sub.qcow2', 'qcow2'));
  });

  test('is read while another QEMU has it locked, and found fresh when it has grown', async () => {
    await images.img('create', '-qf', 'qcow2', 'live.qcow2', '64M');
    await using writer = new Writer(images.path('live.qcow2'));
    await writer.run('write -P 1 0 1M');
    await writer.run('flush');
    const disk = await opened('live.qcow2');
    expect((await disk.read(0, 4 * KiB)).every((byte) => byte === 1)).toBe(true);
    await writer.run('write -P 2 32M 1M');
    await writer.run('flush');
    await delay(600);
    await expect.poll(async () => (await disk.read(32 * MiB, 1))[0], patiently).toBe(2);
  });

  test('that was only written is looked at anew when what was read is doubted', async () => {
    await images.img('create', '-qf', 'qcow2', 'rewritten.qcow2', '8M');
    await using writer = new Writer(images.path('rewritten.qcow2'));
    await writer.run('write -P 3 2M 64k');
    await writer.run('flush');
    const disk = await opened('rewritten.qcow2');
    expect((await disk.read(2 * MiB, 1))[0]).toBe(3);
    // The file keeps its size and blocks: a cluster has got another place on the disk.
    await writer.run('discard 2M 64k');
    await writer.run('write -P 4 4M 64k');
    await writer.run('flush');
    const seen = async () => [(await disk.read(2 * MiB, 1))[0], (await disk.read(4 * MiB, 1))[0]];
    await delay(1000);
    expect(await seen(), 'the old places, with what is there now').toEqual([4, 0]);
    disk.doubt?.();
    await expect.poll(seen, patiently).toEqual([0, 4]);
  });

  test('that has become larger has room for reads beyond its old end', async () => {
    await images.img('create', '-qf', 'qcow2', 'resized.qcow2', '4M');
    const disk = await opened('resized.qcow2');
    await delay(600);
    await images.img('resize', '-q', 'resized.qcow2', '8M');
    await expect.poll(() => disk.read(6 * MiB, 4).catch((error) => error.code), patiently).toEqual(Buffer.alloc(4));
    expect(disk.lengthBytes).toBe(8 * MiB);
    await expect(disk.read(8 * MiB - 1, 2)).rejects.toMatchObject({ code: 'VMMIG_DISK_RANGE' });
  });

  test('has no ranges that are none', async () => {
    await images.img('create', '-qf', 'qcow2', 'empty.qcow2', '1M');
    const disk = await opened('empty.qcow2');
    for (const [offset, lengthBytes] of [
      [-1, 4],
      [0, -1],
      [0.5, 1],
      [MiB, 1],
      [Number.MAX_SAFE_INTEGER, 1],
    ] as const)
      await expect(disk.read(offset, lengthBytes)).rejects.toMatchObject({ code: 'VMMIG_DISK_RANGE' });
    expect(await disk.read(MiB, 0)).toHaveLength(0);
  });
});

describe('an image of another kind', () => {
  test.each(['vmdk', 'vdi', 'vhdx', 'vpc', 'qed'])('may be %s', async (format) => {
    await images.raw('other.raw', 8 * MiB, [[2 * MiB, MiB]]);
    const name = `other.${format}`;
    await images.img('convert', '-f', 'raw', '-O', format, 'other.raw', name);
    const content = await contentOf(await opened({ path: images.path(name), format }));
    expectSame(content.subarray(0, 8 * MiB), await readFile(images.path('other.raw')));
  });

  test('may be on a block device', async () => {
    await images.img('create', '-qf', 'qcow2', 'device.qcow2', '8M');
    await images.io('device.qcow2', 'write -P 9 1M 1M');
    const { stdout: path } = await execa('losetup', ['--find', '--show', images.path('device.qcow2')]);
    cleanups.push(() => execa('losetup', ['--detach', path]));
    expectSame(await contentOf(await opened({ path, format: 'qcow2' })), await images.content('device.qcow2', 'qcow2'));
  });

  test('may be on a device with large sectors, which are read whole', async () => {
    const content = await readFile(await images.raw('sectors.raw', 4 * MiB, [[0, 2 * MiB]]));
    const options = ['--find', '--show', '--sector-size', '4096', '--direct-io=on'];
    const { stdout: filename } = await execa('losetup', [...options, images.path('sectors.raw')]);
    cleanups.push(() => execa('losetup', ['--detach', filename]));
    const path = `json:${JSON.stringify({ driver: 'host_device', filename })}`;
    const disk = await opened({ path, format: 'raw' }, { direct: true });
    expectSame(await disk.read(5000, 10_000), content.subarray(5000, 15_000));
    expect(disk.counters).toEqual({ requests: 1, reads: 1, readBytes: 3 * 4096 });
    expectSame(await disk.read(4 * MiB - 7, 7), content.subarray(-7));
  });

  test('may be on an NBD server', async () => {
    await images.raw('remote.raw', 4 * MiB, [[MiB, MiB]]);
    const socket = images.path('remote.socket');
    const server = execa('qemu-nbd', ['-r', '-t', '-e', '0', '-k', socket, '-f', 'raw', images.path('remote.raw')], {
      reject: false,
    });
    cleanups.push(async () => {
      server.kill();
      await server;
    });
    await expect.poll(() => readdir(images.folder)).toContain('remote.socket');
    const content = await readFile(images.path('remote.raw'));
    expectSame(await contentOf(await opened({ path: `nbd+unix:///?socket=${socket}`, format: 'raw' })), content);
    const options = { driver: 'raw', file: { driver: 'nbd', server: { type: 'unix', path: socket } } };
    expectSame(await contentOf(await opened({ path: `json:${JSON.stringify(options)}`, format: 'raw' })), content);
  });

  test('may be on a web server', async () => {
    const requested = await images.raw('web.raw', 4 * MiB, [[MiB, MiB]]);
    await images.img('convert', '-f', 'raw', '-O', 'qcow2', 'web.raw', 'web.qcow2');
    const image = await readFile(images.path('web.qcow2'));
    const server = createServer((request, response) => {
      const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
      const part = from === undefined ? image : image.subarray(Number(from), to ? Number(to) + 1 : undefined);
      const range = { 'content-range': `bytes ${from}-${Number(from) + part.length - 1}/${image.length}` };
      const headers = { 'accept-ranges': 'bytes', 'content-length': part.length, ...(from ? range : {}) };
      response.writeHead(from === undefined ? 200 : 206, headers).end(request.method === 'HEAD' ? '' : part);
    }).listen(0, '127.0.0.1');
    cleanups.push(async () => {
      server.close();
      server.closeAllConnections();
    });
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const path = `http://127.0.0.1:${port}/web.qcow2`;
    expectSame(await contentOf(await opened({ path, format: 'qcow2' })), await readFile(requested));
  });

  test('may be on a file system without direct reads', async () => {
    await images.img('create', '-qf', 'qcow2', 'memory.qcow2', '4M');
    await images.io('memory.qcow2', 'write -P 6 1M 1M');
    const folder = await mkdtemp('/dev/shm/vmmig-images-');
    cleanups.push(() => rm(folder, { recursive: true }));
    const path = `${folder}/memory.qcow2`;
    await copyFile(images.path('memory.qcow2'), path);
    const raw = await opened({ path, format: 'raw' });
    const disk = await opened({ path, format: 'qcow2' });
    expect(disk.direct).toBe(raw.direct);
    expectSame(await contentOf(disk), await images.content('memory.qcow2', 'qcow2'));
  });

  test('is not read when it is encrypted, unless the key is there', async () => {
    const create = ['create', '-q', '--object', 'secret,id=s,data=secret', '-f'];
    await images.img(...create, 'qcow2', '-o', 'encryption=on,encrypt.key-secret=s', 'aes.qcow2', '4M');
    const image = { path: images.path('aes.qcow2'), format: 'qcow2' };
    await expect(openDisk(image)).rejects.toMatchObject({
      code: 'VMMIG_DISK_ENCRYPTED',
      message: expect.stringMatching(/is encrypted/),
    });
    await writeFile(images.path('a,key'), 'secret', { mode: 0o600 });
    const disk = await opened({ ...image, keyFile: images.path('a,key') });
    expect(await disk.read(MiB, 512)).toEqual(Buffer.alloc(512));
    const luks = { path: images.path('aes.qcow2'), format: 'luks' };
    await expect(openDisk(luks)).rejects.toMatchObject({ code: 'VMMIG_DISK_FORMAT' });
  });

  test.each([
    ['luks', []],
    ['qcow2', ['-o', 'encrypt.format=luks,encrypt.key-secret=s']],
  ])('is read as the guest reads it when it is %s, encrypted with LUKS, and the key is there', async (format, more) => {
    await images.raw('plain.raw', 4 * MiB, [[MiB, 64 * KiB]]);
    const key = images.path('luks.key');
    await writeFile(key, 'pass phrase', { mode: 0o600 });
    const path = images.path(`secret.${format}`);
    const options =
      format === 'luks' ? ['-o', 'key-secret=s,iter-time=10'] : [`${more[0]}`, `${more[1]},encrypt.iter-time=10`];
    const secret = ['--object', `secret,id=s,file=${key}`];
    // On a busy machine qemu-img may fail to measure how fast it is, which decides how often the key is hashed.
    const convert = () => images.img('convert', ...secret, '-f', 'raw', '-O', format, ...options, 'plain.raw', path);
    await vi.waitFor(convert, { timeout: 45_000, interval: 500 });
    const disk = await opened({ path, format, keyFile: key });
    expect(disk.lengthBytes).toBe(4 * MiB);
    expectSame(await contentOf(disk), await images.content('plain.raw', 'raw'));
    await writeFile(key, 'another one');
    await expect(openDisk({ path, format, keyFile: key })).rejects.toMatchObject({
      code: expect.stringMatching(/^VMMIG_DISK_(ENCRYPTED|OPEN)$/),
    });
  });
});

describe('an image that cannot be opened', () => {
  test.each([
    ['is not there', '/no/such.qcow2', /no such file/i],
    ['has another format', 'plain.img', /not in qcow2 format/],
    ['lacks its backing file', 'orphan.qcow2', /backing file: .*gone\.raw.*No such file/],
  ])('says why: it %s', async (_, name, reason) => {
    await images.raw('plain.img', MiB, [[0, KiB]]);
    await images.img('create', '-qf', 'qcow2', '-u', '-b', 'gone.raw', '-F', 'raw', 'orphan.qcow2', '1M');
    const path = name.startsWith('/') ? name : images.path(name);
    await expect(openDisk({ path, format: 'qcow2' })).rejects.toMatchObject({
      code: 'VMMIG_DISK_OPEN',
      message: expect.stringMatching(reason),
    });
  });

  test('fails the reads, not the opening, where that is left to them', async () => {
    const image = { path: '/no/such.qcow2', format: 'qcow2' };
    const disk = await opened(image, { lazy: true });
    expect(disk.lengthBytes).toBe(0);
    const reads = [disk.read(0, 1), disk.read(1, 1)];
    for (const read of reads) await expect(read).rejects.toMatchObject({ code: 'VMMIG_DISK_OPEN' });
  });
});

describe('qemu-nbd', () => {
  beforeEach(() => images.img('create', '-qf', 'qcow2', 'process.qcow2', '4M'));

  test('is started with the first read where that is asked for, and ends with the reader', async () => {
    const disk = await opened('process.qcow2', { lazy: true });
    expect(await qemuNbdsOf(process.pid)).toEqual([]);
    expect(await disk.read(0, 4)).toEqual(Buffer.alloc(4));
    expect(await qemuNbdsOf(process.pid)).toHaveLength(1);
    const waiting = disk.read(0, 4 * MiB).catch((error) => error);
    await disk[Symbol.asyncDispose]();
    expect(await waiting).toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
    expect(await qemuNbdsOf(process.pid)).toEqual([]);
    await expect(disk.read(0, 1)).rejects.toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
    await disk[Symbol.asyncDispose]();
  });

  test('reads all files, writes none, and gains nothing', async () => {
    await opened('process.qcow2');
    const [pid] = await qemuNbdsOf(process.pid);
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    expect(status).toMatch(/^Uid:\t65534\t65534\t65534\t65534$/m);
    expect(status).toMatch(/^CapEff:\t0{15}4$/m);
    expect(status).toMatch(/^CapBnd:\t0{15}4$/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
  });

  test('leaves no socket behind, not even while it runs', async () => {
    const runDirectory = images.path('run');
    await mkdir(runDirectory, { recursive: true });
    await opened('process.qcow2', { runDirectory });
    expect(await readdir(runDirectory)).toEqual([]);
  });

  test('that is killed fails what it was asked for, and is started again', async () => {
    const disk = await opened('process.qcow2');
    const [pid] = await qemuNbdsOf(process.pid);
    process.kill(pid!, 'SIGSTOP');
    const read = disk.read(0, 4 * MiB).catch((error) => error);
    await delay(50);
    process.kill(pid!, 'SIGKILL');
    expect(await read).toMatchObject({ code: 'VMMIG_DISK_SERVER' });
    await expect.poll(() => isAlive(pid!)).toBe(false);
    await expect.poll(() => disk.read(0, 4).catch((error) => error), patiently).toEqual(Buffer.alloc(4));
  });

  test('that hangs is not waited for when it is to end', async () => {
    const disk = await opened('process.qcow2');
    const [pid] = await qemuNbdsOf(process.pid);
    process.kill(pid!, 'SIGSTOP');
    const waiting = disk.read(0, 1).catch((error) => error);
    await disk[Symbol.asyncDispose]();
    expect(await waiting).toMatchObject({ code: 'VMMIG_DISK_CLOSED' });
    expect(await isAlive(pid!)).toBe(false);
  });

  test('that is missing is said to be', async () => {
    const path = images.path('path');
    await mkdir(path);
    for (const tool of ['sh', 'setpriv']) await symlink(`/usr/bin/${tool}`, `${path}/${tool}`);
    const before = process.env.PATH;
    process.env.PATH = path;
    cleanups.push(async () => {
      process.env.PATH = before;
    });
    const image = { path: images.path('process.qcow2'), format: 'qcow2' };
    await expect(openDisk(image)).rejects.toMatchObject({ code: 'VMMIG_DISK_QEMU_NBD' });
  });

  test('is not waited for by who has given up', async () => {
    const image = { path: images.path('process.qcow2'), format: 'qcow2' };
    await expect(openDisk(image, { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' });
    const stop = new AbortController();
    const disk = await opened(image, { signal: stop.signal });
    const reads = Array.from({ length: 20 }, (_, i) => disk.read(i * 200 * KiB, 100 * KiB));
    stop.abort();
    const results = await Promise.allSettled(reads);
    expect(results.some(({ status }) => status === 'rejected')).toBe(true);
    await expect(disk.read(0, 1)).rejects.toMatchObject({ name: 'AbortError' });
  });
});
