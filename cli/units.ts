/**
 * Values with units, as they are typed: `200mbit`, `25MB/s`, `300ms`, `1h30m`.
 *
 *     bandwidth = number ("bit" | "kbit" | "mbit" | "gbit") ["/s"]      bits, any case
 *               | number ("kB" | "MB" | "GB" | "KiB" | "MiB" | "GiB") "/s"   bytes
 *     duration  = part *part ; part = number ("ms" | "s" | "m" | "min" | "h" | "d")
 *
 * A number without a unit is refused: two people read it in two ways, and one of them is paged at night.
 */

export class UnitError extends Error {
  override readonly name = 'UnitError';
}

const bitUnits: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };
const byteUnits: Readonly<Record<string, number>> = {
  'B/s': 1,
  'kB/s': 1e3,
  'KB/s': 1e3,
  'MB/s': 1e6,
  'GB/s': 1e9,
  'KiB/s': 2 ** 10,
  'MiB/s': 2 ** 20,
  'GiB/s': 2 ** 30,
};
const memoryUnits: Readonly<Record<string, number>> = { MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1e3,
  m: 60e3,
  min: 60e3,
  h: 3_600e3,
  d: 86_400e3,
};

const number = String.raw`\d+(?:\.\d+)?`;
const quantity = new RegExp(`^(${number})\\s*([A-Za-z]+(?:/s)?)$`);
const durationParts = new RegExp(`^(?:${number}[a-z]+)+$`);
const durationPart = new RegExp(`(${number})([a-z]+)`, 'g');

/**
 * 0 to 1.
 * @throws UnitError that says what is right
 */
export function parseShare(text: string): number {
  const percent = /^(\d+(?:\.\d+)?)%$/.exec(text.trim())?.[1];
  if (text.trim() === '0') return 0;
  if (percent === undefined || Number(percent) > 100)
    throw new UnitError(`"${text}" is not a share: give it as 50%, between 0% and 100%`);
  return Number(percent) / 100;
}

/**
 * Bits per second.
 * @throws UnitError that says what is right
 */
export function parseBandwidth(text: string): number {
  const example = 'give it as 200mbit, 1gbit or 25MB/s';
  const typed = text.trim();
  if (isBareNumber(typed)) throw new UnitError(`"${text}" has no unit: ${example}`);
  const match = quantity.exec(typed);
  if (match === null) throw new UnitError(`"${text}" is not a bandwidth: ${example}`);
  const amount = Number(match[1]);
  const unit = match[2]!;
  const bits = bitUnits[unit.replace(/\/s$/, '').toLowerCase()] ?? bytesToBits(byteUnits[unit]);
  if (bits === undefined) throw new UnitError(unknownBandwidthUnit(unit, amount, example));
  return wholeAndPositive(amount * bits, text, 'bit per second');
}

function bytesToBits(bytes: number | undefined): number | undefined {
  return bytes === undefined ? undefined : bytes * 8;
}

/** `mbps` is megabytes to tc and megabits to nearly everyone else. */
function unknownBandwidthUnit(unit: string, amount: number, example: string): string {
  const letter = /^([kmg])(?:bps|b|b\/s)$/i.exec(unit)?.[1]?.toLowerCase();
  if (letter === undefined) return `"${unit}" is not a unit of bandwidth: ${example}`;
  const bytes = letter === 'k' ? 'kB/s' : `${letter.toUpperCase()}B/s`;
  return `"${unit}" may mean bits or bytes: write ${amount}${letter}bit or ${amount}${bytes}`;
}

/**
 * Milliseconds.
 * @throws UnitError that says what is right
 */
export function parseDuration(text: string): number {
  const example = 'give it as 300ms, 30s, 5m or 1h30m';
  const typed = text.trim().replace(/\s+/g, '').toLowerCase();
  if (isBareNumber(typed)) throw new UnitError(`"${text}" has no unit: ${example}`);
  if (!durationParts.test(typed)) throw new UnitError(`"${text}" is not a duration: ${example}`);
  let sumMs = 0;
  for (const [, amount, unit] of typed.matchAll(durationPart)) {
    const unitMs = durationUnits[unit!];
    if (unitMs === undefined) throw new UnitError(`"${unit}" is not a unit of time: ${example}`);
    sumMs += Number(amount) * unitMs;
  }
  return wholeAndPositive(sumMs, text, 'millisecond');
}

/**
 * Bytes: `512MiB`, `4GiB`.
 * @throws UnitError that says what is right
 */
export function parseMemory(text: string): number {
  const example = 'give it as 512MiB or 4GiB';
  const [, amount, unit] = quantity.exec(text.trim()) ?? [];
  const unitBytes = memoryUnits[unit ?? ''];
  if (amount === undefined || unitBytes === undefined)
    throw new UnitError(`"${text}" is not an amount of memory: ${example}`);
  return wholeAndPositive(Number(amount) * unitBytes, text, 'byte');
}

/** A whole number from 1 to `most`. */
export function parseCount(text: string, most: number): number {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(count >= 1 && count <= most)) throw new UnitError(`"${text}" is not a whole number from 1 to ${most}`);
  return count;
}

function isBareNumber(text: string): boolean {
  return /^[\d.]+$/.test(text);
}

/** Rounded, because 0.3 s is 299.99999999999994 ms in binary floating point. */
function wholeAndPositive(value: number, text: string, unit: string): number {
  const rounded = Math.round(value);
  if (rounded < 1) throw new UnitError(`"${text}" is too small: at least one ${unit}`);
  if (!Number.isSafeInteger(rounded)) throw new UnitError(`"${text}" is too large`);
  return rounded;
}
