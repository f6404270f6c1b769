import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { clean, clock, count, duration, eta, memory, percent, rate, wireBytes } from '../../../cli/render/format.js';

describe('quantities', () => {
  it('gives memory in powers of two and the wire in powers of ten', () => {
    expect(memory(1023)).toBe('1023 B');
    expect(memory(1024)).toBe('1.00 KiB');
    expect(memory(421_527_552)).toBe('402 MiB');
    expect(memory(2 ** 30)).toBe('1.00 GiB');
    expect(wireBytes(41_200_000)).toBe('41.2 MB');
    expect(rate(198_000_000)).toBe('198 Mbit/s');
    expect(count(102_400)).toBe('102,400');
  });

  it('never shows a thousand of a unit that has a next one', () => {
    expect(wireBytes(999_999)).toBe('1.00 MB');
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e15 }), (value) => {
        expect(wireBytes(value)).toMatch(/^\d{1,3}(\.\d{1,2})? (B|kB|MB|GB|TB|PB)$/);
      }),
    );
  });

  it('rounds a share neither down to nothing nor up to everything', () => {
    expect(percent(1, 1000)).toBe('< 1 %');
    expect(percent(999, 1000)).toBe('> 99 %');
    expect(percent(0, 1000)).toBe('0 %');
    expect(percent(1000, 1000)).toBe('100 %');
    expect(percent(0, 0)).toBe('0 %');
  });

  it('gives times as people say them', () => {
    expect(duration(287.4)).toBe('287 ms');
    expect(duration(999.7)).toBe('1.00 s');
    expect(duration(2310)).toBe('2.31 s');
    expect(duration(21_800)).toBe('21.8 s');
    expect(duration(59_980)).toBe('1 min 00 s');
    expect(duration(245_000)).toBe('4 min 05 s');
    expect(duration(3_720_000)).toBe('1 h 02 min');
    expect(eta(3200)).toBe('4 s');
    expect(clock(3_723_000)).toBe('1:02:03');
    expect(clock(3_900)).toBe('0:03');
  });
});

describe('clean', () => {
  it('leaves nothing in a name that could drive the terminal', () => {
    expect(clean('vm1\x1b[2J\x07')).toBe('vm1?[2J?');
    expect(clean('two\r\nlines')).toBe('two lines');
    expect(clean('évm-π')).toBe('évm-π');
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(clean(text)).not.toMatch(/\p{Cc}/u);
      }),
    );
  });
});
