import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import type { QemuVersion } from '../../../lab/index.js';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import { captureGuest, give, health, letRun, migrationStatus, pageBytes, recover, startResumable } from './guests.js';

const versions: QemuVersion[] = ['7.2', '10.0'];
const directory = await mkdtemp(join(tmpdir(), 'vmmig-recovery-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

describe.each(versions)('QEMU %s', (version) => {
  it('goes on with another stream when one breaks, even while its main loop waits for a page', async () => {
    const captured = await captureGuest(version, directory);
    await using destination = await startResumable(version, directory, `recovered-${version}`);
    let current: PostcopyStream;
    const handlers = {
      fault: ({ block, page, count }: { block: number; page: number; count: number }) => {
        give(current, captured, block, page, count);
      },
      lost: (e: Error) => console.log('LOST', e),
    };
    current = await PostcopyStream.connect(destination.socketPath, handlers);
    current.begin(captured);
    await current.switchOver(captured.devices);
    await letRun(destination);

    for (const attempt of [1, 2]) {
      // More than QEMU can have taken when the stream breaks; some of it is said to have been taken.
      const taken: [block: number, page: number][] = [];
      const runs = current.missingRuns();
      for (const { block, page, count } of runs.slice(0, Math.ceil(runs.length / 2))) {
        const some = Math.min(count, 64);
        give(current, captured, block, page, some);
        const placed = Array.from({ length: some }, (_, at) => page + at).filter((each) =>
          current.isPlaced(block, each),
        );
        current.whenTaken(() => taken.push(...placed.map((each): [number, number] => [block, each])));
      }
      while (taken.length === 0) await sleep(1);
      await sleep(5);
      await current[Symbol.asyncDispose]();
      const path = join(directory, `${version}-${attempt}.recover`);
      // QEMU's own main loop reads a page that is not there, and waits.
      const block = captured.blocks.findIndex(({ name }) => name === 'pc.ram');
      const missing = current.missingRuns().findLast((run) => run.block === block)!;
      const dump = { val: missing.page * pageBytes, size: pageBytes, filename: `${path}.page` };
      const dumped = destination.qmp.execute('pmemsave', dump);
      await recover(destination, path);
      current = await PostcopyStream.resume(path, handlers, captured);
      expect(taken.filter(([block, page]) => !current.isPlaced(block, page))).toEqual([]);
      await dumped;
      const at = missing.page * pageBytes;
      expect(captured.memory[block]!.compare(await readFile(dump.filename), 0, pageBytes, at, at + pageBytes)).toBe(0);
      await sleep(200);
    }
    for (const { block, page, count } of current.missingRuns()) {
      give(current, captured, block, page, count);
      await current.drained();
    }
    expect(await current.end()).toBe(true);
    await migrationStatus(destination, 'completed');
    await current[Symbol.asyncDispose]();
    expect(await health(destination)).toMatchObject({ errors: 0 });
  });
});
