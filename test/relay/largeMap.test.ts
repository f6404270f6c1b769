/** What a cache map of 64 GiB of page cache takes on either side. */
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { DiskReader } from '../../disk/diskReader.js';
import { newCounters } from '../../relay/counters.js';
import { Prefetcher } from '../../relay/destination/prefetcher.js';
import { RunDigester } from '../../relay/digest.js';
import { decodeHints, encodeHints } from '../../relay/link/hints.js';
import { TeleportMap } from '../../relay/source/teleportMap.js';
import { pageBytes } from './rig.js';

const cachedPages = 16 * 1024 * 1024;
const runPages = 8;
const runs = cachedPages / runPages;
/** A page that is not cached between two runs. */
const pages = runs * (runPages + 1);
const mebibyte = 1024 * 1024;

test('a cache map of 16 M pages in 2 M runs fits on both sides', { timeout: 300_000 }, async () => {
  const used = () => {
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = used();
  const blocks = [{ name: 'pc.ram', lengthBytes: pages * pageBytes }];
  const map = {
    runs: {
      count: runs,
      pfn: Float64Array.from({ length: runs }, (_, at) => at * (runPages + 1)),
      pageCount: new Uint32Array(runs).fill(runPages),
      disk: new Uint16Array(runs),
      diskOffsetBytes: Float64Array.from({ length: runs }, (_, at) => at * runPages * pageBytes),
    },
    gpaMap: [{ gpaStart: 0, lengthBytes: pages * pageBytes, block: 'pc.ram', blockOffset: 0 }],
    diskIndexes: [0],
  };
  const ofAgentBytes = used() - before;
  const teleport = new TeleportMap(blocks, map);
  for (let run = 0; run < runs; run += 1024) teleport.noteInPlace(0, run * (runPages + 1), Buffer.alloc(16, 1));
  const ofSourceBytes = used() - before;
  expect(teleport.find(0, (runs - 1) * (runPages + 1) + 3)).toBe(true);
  expect(teleport.isInPlace(0, 1024 * (runPages + 1), runPages, Buffer.alloc(16, 1))).toBe(true);

  const payloads = encodeHints(teleport.runs());
  const hintBytes = payloads.reduce((sum, { length }) => sum + length, 0);
  await delay(0);
  const beforeDestination = used();
  // Nothing is read here.
  const disk = { read: () => new Promise(() => {}) } as unknown as DiskReader;
  const sink = { place: () => {}, mayPlace: () => false };
  const digester = new RunDigester(Buffer.alloc(32));
  const prefetcher = new Prefetcher([disk], digester, newCounters(), [pages], sink);
  for (const payload of payloads) prefetcher.add(decodeHints(payload, [pages]));
  const ofDestinationBytes = used() - beforeDestination;
  const inMebibytes = [ofAgentBytes, ofSourceBytes, hintBytes, ofDestinationBytes].map((bytes) => bytes / mebibyte);
  console.log(
    `MiB: agent's map ${inMebibytes[0]}, source ${inMebibytes[1]}, hints ${inMebibytes[2]}, destination ${inMebibytes[3]}`,
  );
  // Garbage that has not been collected yet counts as well.
  expect(inMebibytes[1]).toBeLessThan(190);
  expect(inMebibytes[2]).toBeLessThan(32);
  expect(inMebibytes[3]).toBeLessThan(230);
});
