import { expect, test } from 'vitest';
import { FrameQueue } from '../../../relay/destination/frameQueue.js';
import type { RelayError } from '../../../relay/errors.js';
import { frameType } from '../../../relay/link/frames.js';

const mebibyte = 1024 * 1024;

/** A queue whose frames are handled when the test says so. */
function slowQueue() {
  const crowds: boolean[] = [];
  const failures: RelayError[] = [];
  let handleOne: (() => void) | undefined;
  let sequence = 0;
  const queue = new FrameQueue({
    handle: () =>
      new Promise((resolve) => {
        handleOne = resolve;
      }),
    failed: (error) => failures.push(error),
    hasEnded: () => false,
    crowded: (isCrowded) => crowds.push(isCrowded),
  });
  const payload = Buffer.alloc(mebibyte);
  return {
    crowds,
    failures,
    add: () => queue.add({ type: frameType.batch, sequence: sequence++, payload }),
    async handleOne() {
      handleOne!();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test('says when so much waits that the source had better, and when that is over', async () => {
  const queue = slowQueue();
  for (let frame = 0; frame < 20; frame++) queue.add();
  expect(queue.crowds).toEqual([]);
  for (let frame = 0; frame < 10; frame++) queue.add();
  expect(queue.crowds).toEqual([true]);
  for (let frame = 0; frame < 10; frame++) await queue.handleOne();
  expect(queue.crowds).toEqual([true]);
  for (let frame = 0; frame < 10; frame++) await queue.handleOne();
  expect(queue.crowds).toEqual([true, false]);
  expect(queue.failures).toEqual([]);
});

test('keeps no more than a source that goes on regardless could have under way', () => {
  const queue = slowQueue();
  expect(() => {
    for (let frame = 0; frame < 200; frame++) queue.add();
  }).toThrow('the source relay ignores the window');
});
