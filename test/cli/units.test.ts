import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseBandwidth, parseCount, parseDuration, parseShare, UnitError } from '../../cli/units.js';

describe('parseBandwidth', () => {
  it.each([
    ['200mbit', 200e6],
    ['200Mbit', 200e6],
    ['200 mbit/s', 200e6],
    ['1gbit', 1e9],
    ['1.5gbit', 1.5e9],
    ['64kbit', 64e3],
    ['25MB/s', 200e6],
    ['1MiB/s', 2 ** 23],
    ['8bit', 8],
  ])('reads %s', (text, bps) => {
    expect(parseBandwidth(text)).toBe(bps);
  });

  it.each([
    ['200', /"200" has no unit: give it as 200mbit/],
    ['200mbps', /may mean bits or bytes: write 200mbit or 200MB\/s/],
    ['10k', /"k" is not a unit of bandwidth/],
    ['fast', /"fast" is not a bandwidth/],
    ['', /not a bandwidth/],
    ['-5mbit', /not a bandwidth/],
    ['0mbit', /too small/],
    ['0.1bit', /too small/],
    ['99999999999gbit', /too large/],
    ['1e9bit', /not a bandwidth/],
  ])('refuses %j and says what is right', (text, message) => {
    expect(() => parseBandwidth(text)).toThrow(message);
  });

  it('multiplies any amount by its unit', () => {
    const units = [
      ['bit', 1],
      ['kbit', 1e3],
      ['mbit', 1e6],
      ['gbit', 1e9],
      ['MB/s', 8e6],
      ['KiB/s', 8192],
    ] as const;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), fc.constantFrom(...units), (amount, [unit, factor]) => {
        expect(parseBandwidth(`${amount}${unit}`)).toBe(amount * factor);
      }),
    );
  });
});

describe('parseDuration', () => {
  it.each([
    ['300ms', 300],
    ['0.3s', 300],
    ['30s', 30_000],
    ['5m', 300_000],
    ['5min', 300_000],
    ['1h', 3_600_000],
    ['1h30m', 5_400_000],
    ['1h 30m', 5_400_000],
    ['2d', 172_800_000],
  ])('reads %s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each([
    ['300', /"300" has no unit: give it as 300ms/],
    ['5 parsecs', /"parsecs" is not a unit of time/],
    ['soon', /"soon" is not a duration/],
    ['', /not a duration/],
    ['-1s', /not a duration/],
    ['0s', /too small/],
    ['0.2ms', /too small/],
    ['999999999999d', /too large/],
    ['1h30', /not a duration/],
  ])('refuses %j and says what is right', (text, message) => {
    expect(() => parseDuration(text)).toThrow(message);
  });

  it('adds up its parts', () => {
    fc.assert(
      fc.property(fc.nat(23), fc.nat(59), fc.nat(59), fc.integer({ min: 1, max: 999 }), (h, m, s, ms) => {
        expect(parseDuration(`${h}h${m}m${s}s${ms}ms`)).toBe(((h * 60 + m) * 60 + s) * 1000 + ms);
      }),
    );
  });
});

describe('any text', () => {
  it.each([
    ['bandwidth', parseBandwidth],
    ['duration', parseDuration],
  ] as const)('is a whole positive number of %s, or a UnitError', (_name, parse) => {
    const almost = fc.tuple(fc.double(), fc.string({ maxLength: 6 })).map(([amount, unit]) => `${amount}${unit}`);
    fc.assert(
      fc.property(fc.oneof(fc.string(), almost), (text) => {
        try {
          const value = parse(text);
          expect(Number.isSafeInteger(value) && value >= 1).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(UnitError);
        }
      }),
    );
  });
});

describe('parseShare', () => {
  it.each([
    ['0', 0],
    ['0%', 0],
    ['12.5%', 0.125],
    [' 100% ', 1],
  ])('reads %s', (text, share) => expect(parseShare(text)).toBe(share));

  it.each(['1', '0.5', '101%', '-1%', '%', 'all', ''])('refuses "%s"', (text) =>
    expect(() => parseShare(text)).toThrow(/is not a share: give it as 50%/),
  );
});

describe('parseCount', () => {
  it('takes whole numbers within its bounds and nothing else', () => {
    expect(parseCount('64', 64)).toBe(64);
    for (const text of ['0', '65', '1.5', '-1', '', 'four', '0x10']) {
      expect(() => parseCount(text, 64)).toThrow(/whole number from 1 to 64/);
    }
  });
});
