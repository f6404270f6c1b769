import { describe, expect, test } from 'vitest';
import { WrittenMemory } from '../../host-service/writtenMemory.js';

const runs = [0, 256].map((page) => ({ gpa: page * 4096, block: 'pc.ram', page, pages: 2, weight: 100 }));
/** Two pages that take 4 kB each when they are sent. */
const run = (...marks: [number, number]) => ({ pages: 2, bytes: 8_000, marks });
const none = () => false;

describe('what a guest writes', () => {
  test('is not known from one look', () => {
    const written = new WrittenMemory(runs);
    written.looked(0, [run(1, 1), run(1, 1)], none);
    expect(written.found).toBeNull();
  });

  test('is what differs from one look to the next, for all the memory that was not looked at', () => {
    const written = new WrittenMemory(runs);
    written.looked(0, [run(1, 1), run(1, 1)], none);
    written.looked(2_000, [run(1, 2), run(2, 2)], none);
    expect(written.found).toEqual({
      behindBytes: 0,
      bytesPerSecond: 600_000,
      everBytes: 1_200_000,
      newBytesPerSecond: 600_000,
    });
  });

  test('is new where it is written for the first time', () => {
    const written = new WrittenMemory(runs);
    for (let look = 0; look < 4; look++) written.looked(look * 1_000, [run(look, 1), run(1, 1)], none);
    expect(written.found).toMatchObject({ bytesPerSecond: 400_000, everBytes: 400_000, newBytesPerSecond: 0 });
  });

  test('is to be sent again where the first pass has come past', () => {
    const written = new WrittenMemory(runs);
    const firstPassed = (at: number) => at === 0;
    written.looked(0, [run(1, 1), run(1, 1)], none);
    written.looked(1_000, [run(2, 2), run(1, 1)], firstPassed);
    expect(written.found!.behindBytes).toBe(0);
    written.looked(2_000, [run(3, 2), run(3, 3)], firstPassed);
    expect(written.found!.behindBytes).toBe(400_000);
    written.looked(3_000, [run(3, 3), run(3, 3)], firstPassed);
    expect(written.found).toMatchObject({ behindBytes: 800_000, everBytes: 1_600_000 });
  });

  test('costs what its pages take, and nothing where they are zero', () => {
    const written = new WrittenMemory(runs);
    written.looked(0, [run(1, 1), run(1, 1)], none);
    written.looked(
      1_000,
      [
        { pages: 1, bytes: 1_000, marks: [2, 2] },
        { pages: 0, bytes: 0, marks: [0, 0] },
      ],
      none,
    );
    expect(written.found).toMatchObject({ bytesPerSecond: 200_000, everBytes: 200_000 });
  });

  test('leaves out what could not be looked at', () => {
    const written = new WrittenMemory(runs);
    written.looked(0, [null, run(1, 1)], none);
    written.looked(1_000, [run(1, 1), null], none);
    expect(written.found).toMatchObject({ bytesPerSecond: 0, everBytes: 0 });
  });
});
