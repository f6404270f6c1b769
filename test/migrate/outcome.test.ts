import { describe, expect, it } from 'vitest';
import { outcome } from '../../migrate/outcome.js';

const known = { cancelled: false, mayBeHeld: true, complete: true };

describe('The outcome', () => {
  it.each(['moved', 'unreleased'] as const)(
    'is the destination when it is %s, with 6 while memory is missing',
    (end) => {
      expect(outcome({ ...known, end })).toEqual({ vmLocation: 'destination', result: 'moved', exitCode: 0 });
      expect(outcome({ ...known, end, complete: false })).toEqual({
        vmLocation: 'destination',
        result: 'interrupted',
        exitCode: 6,
      });
    },
  );

  it('is the source when the guest stayed, with 3 when that was wanted', () => {
    expect(outcome({ ...known, end: 'stayed' })).toEqual({ vmLocation: 'source', result: 'failed', exitCode: 1 });
    expect(outcome({ ...known, end: 'stayed', cancelled: true })).toEqual({
      vmLocation: 'source',
      result: 'cancelled',
      exitCode: 3,
    });
  });

  it('is unknown when nothing is known, or when the source may be waiting to be told', () => {
    const unknown = { vmLocation: 'unknown', result: 'unknown', exitCode: 7 };
    expect(outcome({ ...known, end: 'unknown' })).toEqual(unknown);
    expect(outcome({ ...known, end: 'unconfirmed', cancelled: true })).toEqual(unknown);
  });

  it('is unknown when the guest runs nowhere any more, whatever was wanted and asked', () => {
    for (const mayBeHeld of [true, false])
      expect(outcome({ ...known, end: 'ended', cancelled: true, mayBeHeld })).toEqual({
        vmLocation: 'unknown',
        result: 'unknown',
        exitCode: 7,
      });
  });

  it('is the source when that was never asked to commit, also when it cannot be reached', () => {
    expect(outcome({ ...known, end: 'unconfirmed', mayBeHeld: false })).toEqual({
      vmLocation: 'source',
      result: 'failed',
      exitCode: 1,
    });
  });
});
