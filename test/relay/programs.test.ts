import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { DiskReader } from '../../disk/diskReader.js';
import { pageBytes, RelayRig } from './rig.js';

const pages = 256;
const diskPages = 320;
const disk = randomBytes(diskPages * pageBytes);

/** What happens to a run of pages in one pass. */
type Step =
  | { readonly what: 'fill'; readonly page: number; readonly count: number; readonly fill: number }
  | { readonly what: 'bytes'; readonly page: number; readonly count: number; readonly seed: number }
  | { readonly what: 'cached'; readonly page: number; readonly count: number; readonly diskPage: number };
type MapRun = [pfn: number, count: number, diskPage: number];

const page = fc.nat(pages - 1);
const count = fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 100 }));
const diskPage = fc.oneof(
  fc.nat(diskPages - 1),
  // beyond the end, up to what no disk has
  fc.constantFrom(diskPages - 1, diskPages, 2 ** 30, 2 ** 36),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ what: fc.constant('fill' as const), page, count, fill: fc.constantFrom(0, 0, 0xff) }),
  fc.record({ what: fc.constant('bytes' as const), page, count, seed: fc.nat(255) }),
  fc.record({ what: fc.constant('cached' as const), page, count, diskPage: fc.nat(diskPages - 1) }),
);
const pass = fc.record({
  steps: fc.array(step, { maxLength: 12 }),
  // Lies of every kind: the runs overlap, are unsorted, lie beyond the guest's memory and beyond the disk.
  lies: fc.array(fc.tuple(page, count, diskPage), { maxLength: 6 }),
  map: fc.constantFrom('keep' as const, 'true' as const, 'lying' as const, 'both' as const),
});
const program = fc.record({
  /** What the first pass finds cached, and lies about it: the destination reads ahead by these. */
  cachedAtFirst: fc.array(fc.tuple(page, count, fc.nat(diskPages - 1)), { maxLength: 4 }),
  liesAtFirst: fc.array(fc.tuple(page, count, diskPage), { maxLength: 4 }),
  passes: fc.array(pass, { minLength: 1, maxLength: 6 }),
  reader: fc.constantFrom('plain', 'slow', 'failing', 'flaky', 'short', 'shuffled'),
  compress: fc.boolean(),
  connections: fc.integer({ min: 1, max: 4 }),
});

/** The disk as some destinations have it. */
function misbehaving(how: string): (reader: DiskReader) => DiskReader {
  let reads = 0;
  return (reader) => ({
    path: reader.path,
    lengthBytes: reader.lengthBytes,
    direct: reader.direct,
    counters: reader.counters,
    async read(...args: Parameters<DiskReader['read']>) {
      const read = reads++;
      if (how === 'slow') await delay(read % 8);
      if (how === 'shuffled') await delay((read * 5) % 7);
      if (how === 'failing' || (how === 'flaky' && read % 3 === 0)) throw new Error('the disk is on fire');
      const bytes = await reader.read(...args);
      return how === 'short' && read % 2 === 0 ? bytes.subarray(0, bytes.length - pageBytes) : bytes;
    },
    [Symbol.asyncDispose]: async () => {},
  });
}

test('whatever QEMU sends and the cache map says, both sides end with equal memory', async () => {
  await fc.assert(
    fc.asyncProperty(program, async ({ cachedAtFirst, liesAtFirst, passes, reader, compress, connections }) => {
      await using rig = await RelayRig.start(pages, disk, { reader: misbehaving(reader), compress, connections });
      const guest = randomBytes(pages * pageBytes);
      for (const [at, length, from] of cachedAtFirst)
        disk.copy(guest, at * pageBytes, from * pageBytes, (from + length) * pageBytes);
      if (cachedAtFirst.length + liesAtFirst.length > 0)
        rig.source.setCacheMap(RelayRig.map([...cachedAtFirst, ...liesAtFirst]));
      const first = Array.from({ length: pages }, (_, at): [number, Buffer] => [at, at4k(guest, at)]);
      /** Which disk page each guest page holds, as a truthful agent knows it. */
      const cached = new Map<number, number>();
      const maps: (MapRun[] | null)[] = [null];
      const sent: [number, Buffer | number][][] = [first.map(([at, bytes]) => [at, Buffer.from(bytes)])];
      for (const { steps, lies, map } of passes) {
        const contents: [number, Buffer | number][] = [];
        for (const step of steps) {
          for (let at = step.page; at < Math.min(pages, step.page + step.count); at++) {
            const from = step.what === 'cached' ? step.diskPage + at - step.page : -1;
            const content = contentOf(step, from);
            cached.delete(at);
            if (from >= 0 && from < diskPages) cached.set(at, from);
            if (typeof content === 'number') guest.fill(content, at * pageBytes, (at + 1) * pageBytes);
            else guest.set(content, at * pageBytes);
            contents.push([at, content]);
          }
        }
        const truth = [...cached].sort(([left], [right]) => left - right).map(([at, from]): MapRun => [at, 1, from]);
        const told = { keep: null, true: truth, lying: lies, both: [...truth, ...lies] };
        maps.push(told[map]);
        sent.push(contents);
      }
      sent.push([]);
      await rig.send(sent, (at) => {
        const map = maps[at];
        if (map) rig.source.setCacheMap(RelayRig.map(map));
      });
      await rig.moved();
      expect(rig.memory.equals(guest)).toBe(true);
      expect(rig.tail.toString()).toContain('device state');
      expect(rig.sectionsAfterTail).toBe(0);
      expect(rig.destination.state.pendingRestores).toBe(0);
    }),
    { numRuns: 60, timeout: 10_000 },
  );
});

function contentOf(step: Step, from: number): Buffer | number {
  if (step.what === 'fill') return step.fill;
  if (step.what === 'cached' && from < diskPages) return Buffer.from(at4k(disk, from));
  return randomBytes(pageBytes);
}

function at4k(bytes: Buffer, page: number): Buffer {
  return bytes.subarray(page * pageBytes, (page + 1) * pageBytes);
}
