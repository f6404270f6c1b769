import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BatchBuilder, maxReferencePages } from '../../../relay/link/batch.js';
import { PageStore } from '../../../relay/store/pageStore.js';
import { minLimitBytes } from '../../../relay/store/slabs.js';
import { Destination, expectEmpty, Guest } from './guest.js';

const pagesOfBlock = [1500, 7, 300];
const blocks = pagesOfBlock.map((pages, index) => ({ name: `block ${index}`, lengthBytes: pages * 4096 }));
const limitBytes = minLimitBytes;

const where = { block: fc.constantFrom(0, 0, 0, 0, 1, 2), page: fc.nat(1499) };
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('write' as const), ...where, count: fc.integer({ min: 1, max: 500 }) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('fill' as const),
      ...where,
      count: fc.integer({ min: 1, max: 300 }),
      fill: fc.constantFrom(0, 0, 7),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('read' as const),
      ...where,
      count: fc.integer({ min: 1, max: maxReferencePages }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('send' as const), limit: fc.integer({ min: 1, max: 300 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('acknowledge' as const), index: fc.nat(), isOnDisk: fc.boolean() }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('take' as const), ...where, count: fc.integer({ min: 1, max: 100 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('front' as const), ...where, count: fc.integer({ min: 1, max: 100 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('prefer' as const),
      order: fc.constantFrom('captured' as const, 'recent' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('giveBack' as const), index: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'vmmig-store-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function perform(step: Step, guest: Guest, destination: Destination, builder: BatchBuilder, mayExceed: boolean): void {
  const { store } = guest;
  if ('page' in step) {
    const { block, page: anyPage } = step;
    const page = anyPage % pagesOfBlock[block]!;
    const count = Math.min(step.count, pagesOfBlock[block]! - page);
    if (step.do === 'front') store.moveToFront(block, page, count);
    else if (step.do === 'take') {
      const { sent } = store.takeNow(block, page, count, builder);
      if (sent !== null) destination.receive(sent, builder);
    } else if (store.isFull && !mayExceed) return;
    else if (step.do === 'write') guest.write(block, page, count);
    else if (step.do === 'fill') guest.fill(block, page, count, step.fill);
    else guest.read(block, page, count);
  } else if (step.do === 'prefer') store.prefer(step.order);
  else if (step.do === 'restart') destination.restart();
  else if (step.do === 'giveBack') {
    if (destination.underWay > 0) destination.giveBack(step.index);
  } else if (step.do === 'acknowledge') {
    if (destination.underWay > 0) destination.acknowledge(step.index, step.isOnDisk);
  } else {
    const sent = store.fillBatch(builder, step.limit);
    if (sent !== null) destination.receive(sent, builder);
    else expect(store.unsent).toEqual({ fill: 0, bytes: 0, reference: 0 });
  }
}

/** What the store says is remote is what has not been sent. */
function expectRemoteSet({ store, latest }: Guest, { arrived }: Destination): void {
  let pages = 0;
  pagesOfBlock.forEach((_, block) => {
    const runs = store.remoteSet(block);
    let end = -1;
    for (let index = 0; index < runs.length; index += 2) {
      expect(runs[index]!).toBeGreaterThan(end);
      end = runs[index]! + runs[index + 1]!;
      for (let page = runs[index]!; page < end; page++, pages++)
        expect(arrived.get(`${block}:${page}`)).not.toBe(latest.get(`${block}:${page}`)!.number);
    }
  });
  expect(pages).toBe(store.unsent.bytes);
}

describe('the page store, whatever is done to it', () => {
  for (const spills of [false, true])
    test(`gives the destination the latest version of every page, once${spills ? ', with a spill file' : ''}`, async () => {
      const builder = new BatchBuilder();
      let files = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { minLength: 5, maxLength: 60 }),
          fc.boolean(),
          async (steps, isCompressible) => {
            const spillPath = spills ? path.join(directory, `spill ${files++}`) : null;
            await using store = new PageStore(blocks, { limitBytes, spillPath });
            if (spillPath !== null) expect(existsSync(spillPath)).toBe(false);
            const guest = new Guest(store, isCompressible);
            const destination = new Destination(guest, pagesOfBlock);
            for (const step of steps) {
              perform(step, guest, destination, builder, spills);
              // A step writes 500 pages at most after the store has become full.
              expect(store.heldBytes).toBeLessThanOrEqual(limitBytes + (spills ? 0 : 2 * 1024 * 1024));
            }
            expectRemoteSet(guest, destination);
            destination.drain(builder);
            destination.expectLatest();
            expectEmpty(store);
          },
        ),
        { numRuns: 60 },
      );
    });
});
