import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Elevator, type Waiting } from '../../disk/elevator.js';

const limits = { maxReadBytes: 1000, maxGapBytes: 50 };

function elevatorWith(...ranges: [start: number, end: number][]): Elevator<Waiting> {
  const elevator = new Elevator<Waiting>(limits);
  for (const [offset, end] of ranges) elevator.add({ offset, end });
  return elevator;
}

function takeAll(elevator: Elevator<Waiting>): [start: number, end: number][] {
  const batches: [number, number][] = [];
  for (let batch = elevator.take(); batch !== undefined; batch = elevator.take())
    batches.push([batch.start, batch.end]);
  return batches;
}

test('reads in disk order, whatever the order of arrival', () => {
  expect(takeAll(elevatorWith([900, 910], [100, 110], [500, 510]))).toEqual([
    [100, 110],
    [500, 510],
    [900, 910],
  ]);
});

test('merges ranges that touch, overlap or lie close together, and no others', () => {
  expect(takeAll(elevatorWith([0, 100], [100, 200], [150, 300], [350, 400], [451, 500]))).toEqual([
    [0, 400],
    [451, 500],
  ]);
});

test('does not merge beyond the longest read and does not cut a range that fits one', () => {
  expect(takeAll(elevatorWith([0, 600], [600, 1100]))).toEqual([
    [0, 600],
    [600, 1100],
  ]);
});

test('cuts a range that is longer than the longest read', () => {
  expect(takeAll(elevatorWith([10, 2510], [1500, 1600]))).toEqual([
    [10, 1010],
    [1010, 2010],
    [2010, 2510],
    [1500, 1600],
  ]);
});

test('serves what arrives behind the sweep in the next sweep, after all that is ahead', () => {
  const elevator = elevatorWith([500, 510], [900, 910]);
  expect(elevator.take()?.start).toBe(500);
  elevator.add({ offset: 100, end: 110 });
  elevator.add({ offset: 700, end: 710 });
  expect(takeAll(elevator).map(([start]) => start)).toEqual([700, 900, 100]);
});

test('no range starves while others keep arriving ahead of it', () => {
  const elevator = elevatorWith([0, 10], [100_000, 100_010]);
  let taken = 0;
  for (let offset = 1000; ; offset += 1000) {
    const batch = elevator.take();
    taken += 1;
    if (batch?.parts.some((part) => part.start === 100_000)) break;
    elevator.add({ offset, end: offset + 10 });
    expect(taken).toBeLessThan(200);
  }
});

test('every byte of every range is handed out exactly once, within the limits, for any arrivals', () => {
  const range = fc.record({ offset: fc.nat(20_000), length: fc.integer({ min: 1, max: 3000 }) });
  const step = fc.oneof(range, fc.constant('take' as const));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const elevator = new Elevator<Waiting & { handedOut: [number, number][]; start: number }>(limits);
      const all: { start: number; end: number; handedOut: [number, number][] }[] = [];
      const take = (): boolean => {
        const batch = elevator.take();
        if (batch === undefined) return false;
        expect(batch.end - batch.start).toBeLessThanOrEqual(limits.maxReadBytes);
        for (const part of batch.parts) {
          expect(part.start).toBeGreaterThanOrEqual(batch.start);
          expect(part.end).toBeLessThanOrEqual(batch.end);
          part.waiting.handedOut.push([part.start, part.end]);
        }
        return true;
      };
      for (const one of steps) {
        if (one === 'take') {
          take();
          continue;
        }
        const { offset, length } = one;
        const waiting = { offset, start: offset, end: offset + length, handedOut: [] };
        all.push(waiting);
        elevator.add(waiting);
      }
      while (take());
      expect(elevator.length).toBe(0);
      for (const { start, end, handedOut } of all) {
        let at = start;
        for (const [from, to] of handedOut) {
          expect(from).toBe(at);
          at = to;
        }
        expect(at).toBe(end);
      }
    }),
  );
});
