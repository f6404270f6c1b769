import { expect, test } from 'vitest';
import { BulkSender } from '../../../relay/link/bulkSender.js';
import type { Lane } from '../../../relay/link/lane.js';
import { OpenWindow } from '../../../relay/link/sendingWindow.js';

const payload = Buffer.alloc(16 * 1024);
const header = Buffer.alloc(16);
const frameBytes = header.length + payload.length;
const roomBytes = 256 * 1024;

/** A connection that carries so much each turn, and takes no more than its room. */
class FakeLane {
  readonly peer = {};
  readonly keptFrames = 0;
  unwrittenBytes = 0;
  carriedBytes = 0;
  #waitingBytes = 0;

  constructor(private readonly bytesPerTurn: number) {}

  get isWritable(): boolean {
    return this.#waitingBytes < roomBytes;
  }

  add(head: Buffer, body: Buffer): void {
    this.unwrittenBytes += head.length + body.length;
  }

  write(limitBytes: number): number {
    const written = Math.min(limitBytes, this.unwrittenBytes);
    this.unwrittenBytes -= written;
    this.#waitingBytes += written;
    return written;
  }

  turn(): void {
    const bytes = Math.min(this.bytesPerTurn, this.#waitingBytes);
    this.#waitingBytes -= bytes;
    this.carriedBytes += bytes;
  }
}

test('no connection is left with more than the others when all has been sent', () => {
  const [slow, fast] = [new FakeLane(16 * 1024), new FakeLane(64 * 1024)] as const;
  const handlers = { wrote: () => {}, drained: () => {} };
  const sender = new BulkSender([slow, fast] as unknown as Lane[], new OpenWindow(), null, handlers);
  const frames = 1000;
  for (let frame = 0; frame < frames; frame++) sender.add(header, payload);
  let turns = 0;
  for (; slow.carriedBytes + fast.carriedBytes < frames * frameBytes; turns++) {
    for (const lane of [slow, fast]) lane.turn();
    sender.pump();
  }
  expect(sender.unwrittenBytes).toBe(0);
  const leastTurns = (frames * frameBytes) / (80 * 1024);
  expect(turns).toBeLessThan(leastTurns + (2 * roomBytes) / (16 * 1024));
});
