import { describe, expect, test } from 'vitest';
import {
  adviseNoConvergence,
  describeNoConvergence,
  noConvergence,
  type Situation,
} from '../../migrate/noConvergence.js';

const outrun: Situation = {
  vm: 'vm1',
  passes: 3,
  dirtyBytesPerSecond: 12e6,
  takesBytesPerSecond: 6e6,
  remainingBytes: 96e6,
  downtimeMs: 16_100,
  maxDowntimeMs: 300,
  fixedMs: 120,
  wireBytesPerSecond: 6.25e6,
};

describe('of a guest that does not converge', () => {
  test('the numbers are told: what it writes, what the link takes, what is left', () => {
    expect(describeNoConvergence(outrun)).toBe(
      'vm1 writes faster than the link takes: each second 12 MB of its memory or more get dirty, and the link takes 6 MB of ' +
        'it (50 Mbit/s). After 3 passes 96 MB are left, for which it would have to stand still for 16 s; 300 ms are allowed',
    );
  });

  test('what would help is named, with values that do', () => {
    expect(adviseNoConvergence(outrun)).toMatch(
      /^--max-downtime 18s, a link of 150 Mbit\/s or more, a quieter time, or/,
    );
    const slow = { ...outrun, dirtyBytesPerSecond: 3e6, downtimeMs: 412 };
    expect(describeNoConvergence(slow)).toMatch(
      /^vm1 writes too much for the pause that it may have: each second 3 MB/,
    );
    expect(adviseNoConvergence(slow)).toMatch(/^--max-downtime 450ms, a quieter time/);
  });

  test('a pause that no guest could have is not blamed on what it writes', () => {
    const far = { ...outrun, maxDowntimeMs: 20, downtimeMs: 130 };
    expect(describeNoConvergence(far)).toBe(
      'however little vm1 writes, it would have to stand still for 130 ms; 20 ms are allowed, and what has to happen ' +
        'meanwhile takes 120 ms alone',
    );
    expect(adviseNoConvergence(far)).toBe('--max-downtime 150ms');
  });

  test('the error may be tried again', () => {
    expect(noConvergence(outrun)).toMatchObject({ code: 'VMMIG_NO_CONVERGE', retryable: true, phase: 'precopy' });
  });
});
