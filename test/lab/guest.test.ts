import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDataDisk } from '../../lab/guest/dataDisk.js';
import { type RunningGuest, startTinyGuest, waitForBoot } from '../../lab/guest/launch.js';
import { GuestShell } from '../../lab/guest/shell.js';
import { QmpClient } from '../../qmp/index.js';
import { temporaryDirectory } from './temporary.js';

let directory: Awaited<ReturnType<typeof temporaryDirectory>>;
let disk: string;

beforeAll(async () => {
  directory = await temporaryDirectory();
  disk = join(directory.path, 'data.img');
  await createDataDisk(disk, { contents: 'random', filesMiB: 24, freeMiB: 64 });
});

afterAll(() => directory[Symbol.asyncDispose]());

function start(name: string, more: { qemu?: '7.2' | '10.0'; incoming?: string } = {}): Promise<RunningGuest> {
  const dir = join(directory.path, name);
  return startTinyGuest({ dir, name, memoryMiB: 256, disks: [{ id: 'data', path: disk }], ...more });
}

describe('the tiny guest', () => {
  let guest: RunningGuest;
  let shell: GuestShell;

  beforeAll(async () => {
    guest = await start('vm1');
    shell = await waitForBoot(guest.shellPath);
  });

  afterAll(async () => {
    await shell?.[Symbol.asyncDispose]();
    await guest?.[Symbol.asyncDispose]();
  });

  it('gives output and exit code of a command, whatever bytes they hold', async () => {
    expect(await shell.run('printf "100%%\\n\\nü"; echo lost >&2; exit 3')).toEqual({
      stdout: '100%\n\nülost\n',
      exitCode: 3,
    });
    expect((await shell.run('seq 1 30000')).stdout).toHaveLength(168_894);
    expect(await shell.output('echo one\necho %25')).toBe('one\n%25');
  });

  it('kills a command that takes too long, and goes on', async () => {
    expect((await shell.run('echo begun; sleep 60', { timeoutMs: 500 })).exitCode).toBe(137);
    expect(await shell.output('echo still there')).toBe('still there');
  });

  it('does not wait for what a command leaves running', async () => {
    const began = performance.now();
    await shell.output('sleep 20 &');
    expect(performance.now() - began).toBeLessThan(5000);
  });

  it('answers the next host-side connection after one was dropped in the middle of a command', async () => {
    await using second = await (async () => {
      const interrupted = shell.run('sleep 1; echo late');
      await sleep(100);
      await shell[Symbol.asyncDispose]();
      await expect(interrupted).rejects.toMatchObject({ code: 'VMMIG_LAB_GUEST' });
      return GuestShell.connect(guest.shellPath);
    })();
    expect(await second.output('echo fresh')).toBe('fresh');
    await second[Symbol.asyncDispose]();
    shell = await GuestShell.connect(guest.shellPath);
  });

  it('rejects a command as soon as it is aborted', async () => {
    await expect(shell.run('sleep 1', { signal: AbortSignal.timeout(50) })).rejects.toThrow(/aborted/);
    expect(await shell.output('echo after')).toBe('after');
  });

  it('counts, and says so on its serial console', async () => {
    const first = Number(await shell.output('count'));
    await sleep(1000);
    expect(Number(await shell.output('count')) - first).toBeGreaterThanOrEqual(5);
    expect(await readFile(guest.consoleLogPath, 'utf8')).toContain('tiny guest ready');
  });

  it('reads its files from disk once, and finds their checksums right', async () => {
    const before = Number(await shell.output('disk-reads'));
    await shell.output('fill-cache');
    const filled = Number(await shell.output('disk-reads'));
    expect(filled - before).toBeGreaterThan((24 * 2048 * 95) / 100);
    expect(await shell.output('checksum')).toBe('checked 3 failed 0');
    expect(Number(await shell.output('disk-reads')) - filled).toBeLessThan(100);
  });

  it('finds a file that changed', async () => {
    const damage = 'printf x | dd of=/data/files/random-001 bs=1 seek=1000 conv=notrunc 2>/dev/null';
    await shell.output(`cp /data/files/random-001 /run/kept; ${damage}`);
    const { stdout, exitCode } = await shell.run('checksum');
    expect(stdout).toContain('random-001: FAILED');
    expect(exitCode).toBe(1);
    await shell.output('cp /run/kept /data/files/random-001; checksum; rm /run/kept');
  });

  it('notices a single stale page in the pattern it writes', async () => {
    await shell.output('pattern start 8');
    await sleep(1000);
    expect(await shell.output('pattern status')).toMatch(/^passes [1-9]\d* errors 0 pages 2048$/);
    // Keeps one page of the pattern's own mapping and puts it back later.
    const put = `
      pid=$(cat /run/pattern.pid)
      at=$(awk '$1 ~ /-/ { split($1, a, "-"); if (("0x" a[2]) - ("0x" a[1]) == 8388608) print a[1] }' /proc/$pid/maps)
      page=$((0x$at / 4096 + 77))
      dd if=/proc/$pid/mem of=/run/page bs=4096 skip=$page count=1
      sleep 1
      dd if=/run/page of=/proc/$pid/mem bs=4096 seek=$page conv=notrunc
      sleep 1`;
    await shell.output(`( ${put} ) 2>&1`);
    expect(await shell.output('pattern status')).toMatch(/ errors [12] /);
    await shell.output('pattern stop');
  });

  it('writes, deletes and rereads files without an error', async () => {
    await shell.output('mkdir -p /data/w && fswriter start /data/w 8');
    await sleep(1500);
    expect(await shell.output('fswriter status; fswriter stop')).toMatch(/^rounds [1-9]\d* errors 0 files 16$/);
    await shell.output('rm -r /data/w');
  });

  it('measures the longest pause that a program in it notices', async () => {
    await shell.output('ticker start');
    await sleep(500);
    process.kill(guest.pid, 'SIGSTOP');
    await sleep(700);
    process.kill(guest.pid, 'SIGCONT');
    await sleep(500);
    const [, longestUs] = /longest_us (\d+)/.exec(await shell.output('ticker status; ticker stop'))!;
    expect(Number(longestUs)).toBeGreaterThan(650_000);
    expect(Number(longestUs)).toBeLessThan(2_000_000);
  });

  it('measures how long QEMU had it stopped, which its own clock does not show', async () => {
    await using qmp = await QmpClient.connect({ path: guest.qmpPath });
    await shell.output('ticker start');
    await sleep(2500);
    const began = performance.now();
    await qmp.execute('stop');
    await sleep(1000);
    await qmp.execute('cont');
    const stoppedMs = performance.now() - began;
    await sleep(2500);
    const said = await shell.output('ticker status; ticker stop');
    const [, stoppedUs, pauseUs] = /stopped_us (\d+) pause_us (\d+)/.exec(said)!;
    expect(Number(stoppedUs)).toBeGreaterThan(900_000);
    expect(Number(stoppedUs)).toBeLessThan(stoppedMs * 1000 + 100_000);
    expect(Number(pauseUs)).toBeGreaterThanOrEqual(Number(stoppedUs));
  });

  it('maps ranges of a disk as LVM does', async () => {
    const device = '/dev/vda';
    // Mounted devices cannot be mapped.
    await shell.output('umount /data/');
    await shell.output(`dm-linear joined 8 ${device} 16 16 ${device} 64`);
    const expected = await shell.output(
      `(dd if=${device} bs=512 skip=16 count=8; dd if=${device} bs=512 skip=64 count=16) 2>/dev/null | md5sum`,
    );
    expect(await shell.output('md5sum < /dev/joined')).toBe(expected);
  });
});

describe('a guest that is migrated', () => {
  it('goes on counting and answering on the other QEMU', async () => {
    const qemu = '10.0';
    await using source = await start('source', { qemu });
    let countedOnSource: number;
    {
      await using shell = await waitForBoot(source.shellPath);
      countedOnSource = Number(await shell.output('sleep 1; count'));
    }
    const socket = join(directory.path, 'migration');
    await using destination = await start('destination', { qemu, incoming: `unix:${socket}` });
    await using from = await connectQmp(source);
    await using to = await connectQmp(destination);
    await from.client.execute('migrate', { uri: `unix:${socket}` });
    for (;;) {
      const { status } = await from.client.execute('query-migrate');
      if (status === 'completed') break;
      expect(status).not.toBe('failed');
      await sleep(50);
    }
    while (!(await to.client.execute('query-status')).running) await sleep(20);
    await using shell = await GuestShell.connect(destination.shellPath);
    expect(Number(await shell.output('sleep 1; count'))).toBeGreaterThan(countedOnSource + 5);
  });

  it('says what QEMU said when it does not start', async () => {
    const dir = join(directory.path, 'bad');
    const launch = startTinyGuest({ dir, name: 'bad', memoryMiB: 64, extraArgs: ['-device', 'no-such-device'] });
    await expect(launch).rejects.toThrow(/'no-such-device' is not a valid device model name/);
  });
});

async function connectQmp(guest: RunningGuest): Promise<{ client: QmpClient } & AsyncDisposable> {
  const client = await QmpClient.connect({ path: guest.qmpPath });
  return { client, [Symbol.asyncDispose]: () => client.close() };
}
