import { expect, test } from 'vitest';
import { parseBitRate, parseDurationMs } from '../../hosts/units.js';

test.each([
  ['200mbit', 200e6],
  ['1.5gbit', 1.5e9],
  ['64 kbit', 64e3],
  ['10Gbit', 10e9],
  ['1bit', 1],
])('%s is a rate', (text, bitsPerSecond) => {
  expect(parseBitRate(text)).toBe(bitsPerSecond);
});

test.each(['', '200', 'mbit', '200mb', '-1mbit', '0mbit', '1e3mbit', '200mbit/s', '1 2mbit', 'constructor'])(
  '%j is no rate',
  (text) => {
    expect(parseBitRate(text)).toBeUndefined();
  },
);

test.each([
  ['300ms', 300],
  ['10s', 10_000],
  ['5m', 300_000],
  ['1h', 3_600_000],
])('%s is a duration', (text, ms) => {
  expect(parseDurationMs(text)).toBe(ms);
});
