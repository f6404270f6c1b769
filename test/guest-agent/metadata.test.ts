import { open } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { AgentClient } from '../../guest-agent/client.js';
import { AgentGuest, buildAgent, Workspace } from './agentGuest.js';
import { type KnownFiles, makeExt4, writeKnownFiles } from './images.js';
import { buildNewerGuest } from './newerKernel.js';
import { PageSet } from './pageSet.js';
import { expectRight, judge, readPages } from './truth.js';

let workspace: Workspace;
let guest: AgentGuest;
let agent: AgentClient;
let known: KnownFiles;
let diskPath: string;

beforeAll(async () => {
  workspace = await Workspace.create();
  diskPath = workspace.file('data.img');
  known = await writeKnownFiles(workspace.file('tree'), 4_000, 4);
  await makeExt4(diskPath, known.directory, 64);
  const agentPath = await buildAgent(workspace.file('agent'));
  guest = await AgentGuest.boot({
    dir: workspace.file('guest'),
    name: 'metadata',
    memoryMiB: 384,
    memoryFile: workspace.ramPath,
    image: await buildNewerGuest(workspace.path, agentPath),
    disks: [{ id: 'data', path: diskPath }],
    // QEMU 7.2 emulates cmpxchg16b with wrong flags now and then, of which this kernel dies.
    extraArgs: ['-cpu', 'qemu64,-cx16'],
  });
  agent = await AgentClient.connect({ path: guest.qemu.agentPath });
}, 300_000);

afterAll(async () => {
  agent?.close();
  await guest?.[Symbol.asyncDispose]();
  await workspace?.[Symbol.asyncDispose]();
});

/** Pages of the disk that belong to no file: the file system's own. */
async function metadataPages(): Promise<PageSet> {
  await using disk = await open(diskPath, 'r');
  const metadata = new PageSet();
  for (const digest of (await readPages(disk)).digests) {
    if (!known.pages.digests.has(digest)) metadata.digests.add(digest);
  }
  return metadata;
}

async function scan() {
  const result = await agent.scan({ mode: 'full' });
  return judge(result, { ramPath: workspace.ramPath, diskPaths: { data: diskPath } }, guest.qmp);
}

describe('a guest whose kernel shows which metadata is cached (Linux 6.5)', () => {
  it('has its metadata in the cache map, besides its files', async () => {
    expect(agent.hello).toMatchObject({ walksCacheOnly: true, seesBlocks: true });
    await guest.shell.output('find /data/ -type f -exec cat {} + >/dev/null; sync', { timeoutMs: 60_000 });
    const verdict = await scan();
    expectRight(verdict, known.pages);
    const files = known.pages.intersect(verdict.ram);
    expect(files.size).toBeGreaterThan(3_900);
    expect(files.countIn(verdict.found) / files.size).toBeGreaterThanOrEqual(0.99);
    const metadata = (await metadataPages()).intersect(verdict.ram);
    expect(metadata.size).toBeGreaterThan(200);
    expect(metadata.countIn(verdict.found) / metadata.size).toBeGreaterThanOrEqual(0.9);
    expect(await guest.agentReadBytes()).toBe(0);
  });

  it('is scanned without a read when most of its directories are not cached', async () => {
    await guest.shell.output('sync; echo 3 >/proc/sys/vm/drop_caches; cat /data/group-7/file-77? >/dev/null');
    const verdict = await scan();
    expectRight(verdict, known.pages);
    expect(known.pages.countIn(verdict.found)).toBe(10);
    expect(await guest.agentReadBytes()).toBe(0);
  });
});
