/** QEMU stops an idle guest as soon as it has been through its memory: by then little may be under way. */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { pagesAhead } from '../../relay/source/pagesAhead.js';
import { defaultReadBytes } from '../../relay/source/reusedBuffer.js';
import { pageBytes, RelayRig } from './rig.js';

const contentPages = 2048;
const windowBytes = 4 * 1024 * 1024;

test('the end of a pass is read when most of what came before has arrived', async () => {
  const pages = contentPages + pagesAhead(defaultReadBytes) + 4096;
  await using rig = await RelayRig.start(pages, Buffer.alloc(pageBytes), { bandwidthBps: 40e6 });
  const contents = Array.from({ length: pages }, (_, page): [number, Buffer | number] => [
    page,
    page < contentPages ? randomBytes(pageBytes) : 0,
  ]);
  const sending = rig.send([contents, []]);
  let mostBytes = 0;
  const { counters } = rig.source.state;
  while (counters.pages.seen < pages) {
    mostBytes = Math.max(mostBytes, rig.source.state.backlogBytes);
    await sleep(2);
  }
  // Before that nothing was in its way.
  expect(mostBytes).toBeGreaterThan(contentPages * pageBytes * 0.9);
  expect(rig.source.state.backlogBytes).toBeLessThanOrEqual(windowBytes * 1.05);
  await sending;
  await rig.moved();
  expect(counters.pages).toMatchObject({ sent: contentPages, zero: pages - contentPages });
});
