import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { QemuVersion } from '../../../lab/index.js';
import { PostcopyStream } from '../../../relay/destination/postcopy/postcopyStream.js';
import {
  type CapturedGuest,
  captureGuest,
  give,
  health,
  letRun,
  migrationStatus,
  pageBytes,
  startResumable,
} from './guests.js';

const versions: QemuVersion[] = ['7.2', '10.0'];
const directory = await mkdtemp(join(tmpdir(), 'vmmig-postcopy-'));
afterAll(() => rm(directory, { recursive: true, force: true }));

describe.each(versions)('QEMU %s', (version) => {
  let captured: CapturedGuest;
  beforeAll(async () => {
    captured = await captureGuest(version, directory);
  });

  it.each([
    ['none', 0],
    ['half', 0.5],
    ['all', 1],
  ])('carries the guest on with %s of its pages placed before', async (name, share) => {
    await using destination = await startResumable(version, directory, `${version}-${name}`);
    let lost: Error | null = null;
    const stream = await PostcopyStream.connect(destination.socketPath, {
      fault: ({ block, page, count }) => give(stream, captured, block, page, count),
      lost: (error) => {
        lost = error;
      },
    });
    await using _ = stream;
    stream.begin(captured);
    for (const [block, bytes] of captured.memory.entries()) {
      const pages = bytes.length / pageBytes;
      for (let page = 0; page < pages; page += 64) {
        if ((page / 64) % 2 >= 2 * share) continue;
        give(stream, captured, block, page, Math.min(64, pages - page));
      }
      await stream.drained();
    }
    const missing = stream.missing;
    const started = performance.now();
    const loaded = stream.switchOver(captured.devices);
    const cpu = performance.now() - started;
    await loaded;
    const loadedMs = performance.now() - started;
    await letRun(destination);
    const runningMs = performance.now() - started;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    console.log(version, name, { missing, cpu, loadedMs, runningMs }, JSON.stringify(stream.faults));
    for (const { block, page, count } of stream.missingRuns()) {
      give(stream, captured, block, page, count);
      await stream.drained();
    }
    expect(stream.missing).toBe(0);
    expect(await stream.end()).toBe(true);
    await migrationStatus(destination, 'completed');
    expect(lost).toBe(null);
    const after = await health(destination);
    console.log(after);
    expect(after.errors).toBe(0);
    expect(after.counter).toBeGreaterThan(captured.counter);
  });
});
