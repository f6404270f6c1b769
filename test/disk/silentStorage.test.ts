/** Storage that stops answering is given up, and holds up nothing but what was asked of it. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isWaitingForStorage, openRawDisk } from '../../disk/index.js';

const bytes = randomBytes(1024 * 1024);
const pollOptions = { timeout: 10_000 };

describe('Storage that does not answer', () => {
  let directory: string;
  let path: string;
  let server: number;

  // The image is a program's to answer for, which can be stopped.
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'vmmig-storage-'));
    path = join(directory, 'disk.img');
    const pidFile = join(directory, 'pid');
    await writeFile(path, bytes);
    const node = `driver=file,node-name=disk,filename=${path},locking=off`;
    const served = `type=fuse,id=disk,node-name=disk,mountpoint=${path}`;
    await execa('qemu-storage-daemon', ['--blockdev', node, '--export', served, '--pidfile', pidFile, '--daemonize']);
    server = Number(await readFile(pidFile, 'utf8'));
  });

  afterEach(async () => {
    process.kill(server, 'SIGKILL');
    await execa('umount', ['--lazy', path]);
    await rm(directory, { recursive: true });
  });

  it('is given up after a while, with all that was asked of it', async () => {
    const disk = await openRawDisk(path, { readTimeoutMs: 300, parallelReads: 1 });
    expect(await disk.read(5000, 100)).toEqual(bytes.subarray(5000, 5100));
    process.kill(server, 'SIGSTOP');
    const silent = { code: 'VMMIG_DISK_SILENT' };
    const queued = [0, 500_000].map((offset) => expect(disk.read(offset, 4096)).rejects.toMatchObject(silent));
    await Promise.all(queued);
    await expect(disk.read(8192, 4096)).rejects.toMatchObject(silent);
    // Other files are there for the taking meanwhile, and the disk can be closed.
    expect((await readFile(join(directory, 'pid'), 'utf8')).trim()).toBe(String(server));
    await disk[Symbol.asyncDispose]();
    expect(isWaitingForStorage()).toBe(true);
    process.kill(server, 'SIGCONT');
    await expect.poll(isWaitingForStorage, pollOptions).toBe(false);
  });

  it('is waited for when it answers in time', async () => {
    await using disk = await openRawDisk(path, { readTimeoutMs: 20_000 });
    process.kill(server, 'SIGSTOP');
    const reading = disk.read(5000, 100);
    setTimeout(() => process.kill(server, 'SIGCONT'), 500);
    expect(await reading).toEqual(bytes.subarray(5000, 5100));
  });
});
