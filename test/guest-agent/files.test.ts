import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient } from '../../guest-agent/client.js';
import { AgentGuest, buildAgent, Workspace } from './agentGuest.js';
import { makeExt4 } from './images.js';
import { PageSet } from './pageSet.js';
import { expectRight, judge, type Verdict } from './truth.js';

const MEBIBYTE = 1024 * 1024;
const SOURCE_MIB = 32;

let workspace: Workspace;
let guest: AgentGuest;
let agent: AgentClient;
let source: Buffer;
let receivedBytes = 0;
const diskPaths: Record<string, string> = {};

/** The pages of a part of the source, which is where the guest's files come from. */
function sourcePages(fromMiB: number, lengthBytes: number): PageSet {
  const pages = new PageSet();
  pages.addAll(source.subarray(fromMiB * MEBIBYTE, fromMiB * MEBIBYTE + lengthBytes));
  return pages;
}

/** A command that copies megabytes of the source to a place in a file. */
function write(file: string, fromMiB: number, countMiB: number, toMiB = 0): string {
  return `dd if=/dev/vdb of=${file} bs=1M skip=${fromMiB} count=${countMiB} seek=${toMiB} conv=notrunc 2>/dev/null`;
}

/** A command that starts a process with the file open; its id is in /run/sleep. */
function hold(file: string): string {
  return `sleep 1000 <${file} >/dev/null 2>&1 &
    echo $! >/run/sleep
    while [ "$(readlink /proc/$!/fd/0)" != "$(readlink -f ${file})" ]; do usleep 1000; done`;
}

async function scan(mode: 'full' | 'changes' = 'full') {
  const result = await agent.scan({ mode });
  return { result, verdict: await judge(result, { ramPath: workspace.ramPath, diskPaths }, guest.qmp) };
}

function shareFound(verdict: Verdict, pages: PageSet): number {
  return pages.countIn(verdict.found) / pages.size;
}

beforeAll(async () => {
  workspace = await Workspace.create();
  source = randomBytes(SOURCE_MIB * MEBIBYTE);
  diskPaths.files = workspace.file('files.img');
  diskPaths.source = workspace.file('source.img');
  await writeFile(diskPaths.source, source);
  await mkdir(workspace.file('empty'));
  await makeExt4(diskPaths.files, workspace.file('empty'), 128);
  guest = await AgentGuest.boot({
    dir: workspace.file('guest'),
    name: 'files',
    memoryMiB: 256,
    memoryFile: workspace.ramPath,
    agentPath: await buildAgent(workspace.file('agent')),
    disks: Object.entries(diskPaths).map(([id, path]) => ({ id, path })),
  });
  // Nothing becomes clean by itself while a test looks at it.
  await guest.shell.output(
    'cd /proc/sys/vm && echo 0 >dirty_writeback_centisecs && echo 360000 >dirty_expire_centisecs',
  );
  const stream = connect(guest.qemu.agentPath);
  stream.on('data', (bytes: Buffer) => {
    receivedBytes += bytes.length;
  });
  agent = await AgentClient.connect({ stream });
}, 240_000);

afterAll(async () => {
  agent?.close();
  await guest?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

describe('the cache map', () => {
  it('has the pages of a file with two names once', async () => {
    await guest.shell.output(`${write('/data/linked', 0, 2)}; ln /data/linked /data/again; sync`);
    const { verdict } = await scan();
    const pages = sourcePages(0, 2 * MEBIBYTE);
    expectRight(verdict, sourcePages(0, source.length));
    expect(shareFound(verdict, pages)).toBe(1);
    for (const digest of pages.digests) expect(verdict.timesFound.get(digest)).toBe(1);
  });

  it('has the pages of a deleted file as long as a process uses it', async () => {
    await guest.shell.output(`${write('/data/deleted', 2, 2)}; sync`);
    await guest.shell.output(`${hold('/data/deleted')}; rm /data/deleted`);
    const inUse = await scan();
    expectRight(inUse.verdict, sourcePages(0, source.length));
    expect(shareFound(inUse.verdict, sourcePages(2, 2 * MEBIBYTE))).toBe(1);
    await guest.shell.output('kill $(cat /run/sleep); sync');
    const gone = await scan('changes');
    expect(shareFound(gone.verdict, sourcePages(2, 2 * MEBIBYTE))).toBe(0);
    expectRight(gone.verdict, sourcePages(0, source.length));
  });

  it('ends where a truncated file ends', async () => {
    const keptBytes = 1_000_000;
    await guest.shell.output(`${write('/data/cut', 4, 2)}; sync; truncate -s ${keptBytes} /data/cut; sync`);
    const { verdict } = await scan('changes');
    expectRight(verdict, sourcePages(0, source.length));
    expect(shareFound(verdict, sourcePages(4, keptBytes))).toBe(1);
    const beyond = Math.ceil(keptBytes / 4096) * 4096;
    const rest = new PageSet();
    rest.addAll(source.subarray(4 * MEBIBYTE + beyond, 6 * MEBIBYTE));
    expect(shareFound(verdict, rest)).toBe(0);
  });

  it('leaves out holes and what was only reserved', async () => {
    await guest.shell.output(
      `${write('/data/sparse', 6, 1)}; ${write('/data/sparse', 7, 1, 9)}; fallocate -l 1m /data/reserved; sync
      cat /data/sparse /data/reserved >/dev/null`,
    );
    const { result, verdict } = await scan('changes');
    expectRight(verdict, sourcePages(0, source.length));
    expect(shareFound(verdict, sourcePages(6, 2 * MEBIBYTE))).toBe(1);
    expect(result.skipped.hole).toBe((8 * MEBIBYTE) / 4096);
    expect(result.skipped.unwritten).toBe(MEBIBYTE / 4096);
  });

  it('leaves out what is newer than the disk, until it is written back', async () => {
    await guest.shell.output(`${write('/data/dirty', 8, 2)}; sync; ${write('/data/dirty', 10, 1)}`);
    await guest.shell.output(write('/data/fresh', 12, 2));
    const before = await scan('changes');
    expectRight(before.verdict, sourcePages(0, source.length));
    expect(before.result.skipped.dirty).toBeGreaterThanOrEqual((3 * MEBIBYTE) / 4096);
    expect(shareFound(before.verdict, sourcePages(9, MEBIBYTE))).toBe(1);
    expect(shareFound(before.verdict, sourcePages(10, MEBIBYTE))).toBe(0);
    expect(shareFound(before.verdict, sourcePages(12, 2 * MEBIBYTE))).toBe(0);
    await guest.shell.output('sync');
    const after = await scan('changes');
    expectRight(after.verdict, sourcePages(0, source.length));
    expect(after.result.skipped.dirty ?? 0).toBeLessThan(16);
    expect(shareFound(after.verdict, sourcePages(10, MEBIBYTE))).toBe(1);
    expect(shareFound(after.verdict, sourcePages(12, 2 * MEBIBYTE))).toBe(1);
  });

  it('has the pages of a block device that is read directly', async () => {
    await guest.shell.output(`${hold('/dev/vdb')}; dd if=/dev/vdb of=/dev/null bs=1M skip=20 count=4 2>/dev/null`);
    const { verdict } = await scan('changes');
    expectRight(verdict, sourcePages(0, source.length));
    expect(shareFound(verdict, sourcePages(20, 4 * MEBIBYTE))).toBe(1);
    await guest.shell.output('kill $(cat /run/sleep)');
  });

  it('is complete after a scan for changes that was sent little', async () => {
    await guest.shell.output('sync');
    receivedBytes = 0;
    await agent.scan({ mode: 'full' });
    const fullBytes = receivedBytes;
    await guest.shell.output(`rm /data/linked /data/again; ${write('/data/new', 14, 1)}; sync`);
    receivedBytes = 0;
    const changes = await scan('changes');
    const changesBytes = receivedBytes;
    const full = await scan('full');
    expectRight(changes.verdict, sourcePages(0, source.length));
    expect(changes.result.runs).toEqual(full.result.runs);
    expect(shareFound(changes.verdict, sourcePages(14, MEBIBYTE))).toBe(1);
    expect(shareFound(changes.verdict, sourcePages(0, 2 * MEBIBYTE))).toBe(0);
    receivedBytes = 0;
    const nothing = await agent.scan({ mode: 'changes' });
    expect(nothing.runs).toEqual(full.result.runs);
    // Not a single group: the list of disks and the summary only.
    expect(receivedBytes).toBeLessThan(256);
    expect(changesBytes).toBeLessThan(fullBytes);
  });
});
