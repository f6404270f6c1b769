import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QemuVersion } from '../../../lab/index.js';
import type { MigrationCapability } from '../../../qmp/index.js';
import type { PageRun } from '../../../relay/destination/postcopy/blockPages.js';
import type { PostcopyOptions } from '../../../relay/destination/postcopy/options.js';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import {
  type CapturedGuest,
  captureGuest,
  freeHugePages,
  give,
  health,
  letRun,
  memoryMiB,
  migrationStatus,
  pageBytes,
  type Resumable,
  ramName,
  recover,
  startResumable,
} from './guests.js';

const versions: QemuVersion[] = ['7.2', '10.0'];
const directory = await mkdtemp(join(tmpdir(), 'vmmig-postcopy-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

const hugePageBytes = 2 * 2 ** 20;
const memory = {
  anonymous: [],
  shared: ['-object', `memory-backend-memfd,id=${ramName},size=${memoryMiB}M,share=on`],
  huge: ['-object', `memory-backend-memfd,id=${ramName},size=${memoryMiB}M,hugetlb=on,hugetlbsize=2M`],
};

describe.each(versions)('QEMU %s', (version) => {
  let captured: CapturedGuest;
  beforeAll(async () => {
    captured = await captureGuest(version, directory);
  });

  /** A stream that answers faults from the captured guest. */
  async function connect(
    { socketPath }: Resumable,
    lost: Error[] = [],
    options: PostcopyOptions = {},
  ): Promise<PostcopyStream> {
    const handlers = {
      fault: ({ block, page, count }: PageRun) => give(stream, captured, block, page, count),
      lost: (error: Error) => void lost.push(error),
    };
    const stream = await PostcopyStream.connect(socketPath, handlers, options);
    return stream;
  }

  async function giveTheRest(stream: PostcopyStream): Promise<void> {
    for (const { block, page, count } of stream.missingRuns()) {
      for (let at = page; at < page + count; at += 256) {
        give(stream, captured, block, at, Math.min(256, page + count - at), 'local');
        await stream.drained();
      }
    }
  }

  async function expectHealthy(destination: Resumable): Promise<void> {
    const { counter, errors } = await health(destination);
    expect(errors).toBe(0);
    expect(counter).toBeGreaterThan(captured.counter);
    expect(counter).toBeLessThan(captured.counter + 600);
  }

  it.each<[string, number, keyof typeof memory]>([
    ['none', 0, 'anonymous'],
    ['half', 0.5, 'shared'],
    ['all', 1, 'anonymous'],
  ])('carries the guest on with %s of its pages placed before', async (name, share, kind) => {
    await using destination = await startResumable(version, directory, `${version}-${name}`, memory[kind]);
    const lost: Error[] = [];
    await using stream = await connect(destination, lost);
    stream.begin(captured);
    for (const [block, bytes] of captured.memory.entries()) {
      const pages = bytes.length / pageBytes;
      for (let page = 0; page < pages; page += 64) {
        if ((page / 64) % 2 < 2 * share) give(stream, captured, block, page, Math.min(64, pages - page));
        await stream.drained();
      }
    }
    await stream.switchOver(captured.devices);
    await letRun(destination);
    await sleep(500);
    const faults = stream.faults!.count;
    if (share === 1) expect(faults).toBe(0);
    else expect(faults).toBeGreaterThan(100);
    await giveTheRest(stream);
    expect(await stream.end()).toBe(true);
    await migrationStatus(destination, 'completed');
    expect(lost).toEqual([]);
    await expectHealthy(destination);
  });

  it.each<[string, MigrationCapability[]]>([
    ['waits', ['postcopy-preempt']],
    ['does not wait', []],
  ])('that %s for a second connection carries the guest on', async (name, capabilities) => {
    await using destination = await startResumable(version, directory, `${version}-${name}`, [], capabilities);
    const lost: Error[] = [];
    await using stream = await connect(destination, lost, { mayPreempt: true });
    stream.begin(captured);
    await stream.switchOver(captured.devices);
    await letRun(destination);
    await giveTheRest(stream);
    expect(await stream.end()).toBe(true);
    await migrationStatus(destination, 'completed');
    expect(lost).toEqual([]);
    await expectHealthy(destination);
  });

  it('that cannot load the device state says so before the guest has run', async () => {
    await using destination = await startResumable(version, directory, `${version}-refusing`);
    const lost: Error[] = [];
    await using stream = await connect(destination, lost);
    stream.begin(captured);
    const damaged = Buffer.from(captured.devices);
    damaged.fill(0xff, 0, 200);
    await expect(stream.switchOver(damaged)).rejects.toMatchObject({ code: 'VMMIG_RELAY_QEMU' });
    expect(lost).toMatchObject([{ code: 'VMMIG_RELAY_QEMU' }]);
    await destination.guest.exited;
  });

  it('gets its answers ahead of what is restored at full speed', async () => {
    await using destination = await startResumable(version, directory, `${version}-busy`);
    await using stream = await connect(destination);
    stream.begin(captured);
    await stream.switchOver(captured.devices);
    await letRun(destination);
    // Zero pages, too, to have something to do.
    for (const { block, page, count } of stream.missingRuns()) {
      for (let at = page; at < page + count; at += 256) {
        const bytes = captured.memory[block]!;
        stream.place(block, at, Math.min(256, page + count - at), bytes, at * pageBytes, 'local');
        await stream.drained();
      }
    }
    expect(await stream.end()).toBe(true);
    const { remote } = stream.faults!.answers;
    expect(remote.count).toBeGreaterThan(20);
    expect(remote.p50Ms).toBeLessThan(2);
  });

  it.skipIf(freeHugePages() < memoryMiB / 2)('carries the guest on in huge pages', async () => {
    await using destination = await startResumable(version, directory, `${version}-huge`, memory.huge);
    await using stream = await connect(destination);
    const blocks = captured.blocks.map((block) => {
      return block.name === ramName ? { ...block, pageSizeBytes: hugePageBytes } : block;
    });
    stream.begin({ ...captured, blocks });
    const ram = blocks.findIndex(({ name }) => name === ramName);
    give(stream, captured, ram, 0, 8192);
    stream.remote(ram, 5000, 1);
    await stream.switchOver(captured.devices);
    await letRun(destination);
    await sleep(500);
    await giveTheRest(stream);
    expect(await stream.end()).toBe(true);
    await expectHealthy(destination);
  });

  it('goes on with another stream when one breaks, even while its main loop waits for a page', async () => {
    await using destination = await startResumable(version, directory, `${version}-recovered`);
    let stream = await connect(destination);
    try {
      const handlers = {
        fault: ({ block, page, count }: PageRun) => give(stream, captured, block, page, count),
        lost: () => {},
      };
      stream.begin(captured);
      await stream.switchOver(captured.devices);
      await letRun(destination);
      for (const attempt of [1, 2]) {
        // More than QEMU can have taken when the stream breaks; some of it is said to have been taken.
        const taken: [block: number, page: number][] = [];
        const runs = stream.missingRuns();
        for (const { block, page, count } of runs.slice(0, Math.ceil(runs.length / 2))) {
          const some = Math.min(count, 64);
          give(stream, captured, block, page, some);
          const pages = Array.from({ length: some }, (_, at) => page + at).filter((at) => stream.isPlaced(block, at));
          stream.whenTaken(() => taken.push(...pages.map((at): [number, number] => [block, at])));
        }
        while (taken.length === 0) await sleep(1);
        await sleep(5);
        // The page that is to be waited for is to be as it was: the guest might write to it first.
        await destination.qmp.execute('stop');
        await stream[Symbol.asyncDispose]();

        const path = join(directory, `${version}-${attempt}.recover`);
        // QEMU's own main loop reads a page that is not there, and waits.
        const block = captured.blocks.findIndex(({ name }) => name === ramName);
        const missing = stream.missingRuns().findLast((run) => run.block === block)!;
        const dump = { val: missing.page * pageBytes, size: pageBytes, filename: `${path}.page` };
        const dumped = destination.qmp.execute('pmemsave', dump);
        await recover(destination, path);
        stream = await PostcopyStream.resume(path, handlers, captured);
        expect(taken.filter(([at, page]) => !stream.isPlaced(at, page))).toEqual([]);
        await dumped;
        const at = missing.page * pageBytes;
        expect(captured.memory[block]!.compare(await readFile(dump.filename), 0, pageBytes, at, at + pageBytes)).toBe(
          0,
        );
        await destination.qmp.execute('cont');
        await sleep(200);
      }
      await giveTheRest(stream);
      expect(await stream.end()).toBe(true);
      await migrationStatus(destination, 'completed');
      await expectHealthy(destination);
    } finally {
      await stream[Symbol.asyncDispose]();
    }
  });
});
