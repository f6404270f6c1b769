/** Quantities as people read them: memory in powers of two, what crosses a wire in powers of ten. */

export const pageBytes = 4096;

const binary = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const decimal = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;
const bits = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'] as const;

/** Memory and disks: `402 MiB`. */
export function memory(bytes: number): string {
  return scaled(bytes, 1024, binary);
}

/** What crosses the network: `41.2 MB`. */
export function wireBytes(bytes: number): string {
  return scaled(bytes, 1000, decimal);
}

/** Bits per second: `198 Mbit/s`. */
export function rate(bps: number): string {
  return scaled(bps, 1000, bits);
}

export function count(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** A share of a whole, never rounded up to 100 % nor down to 0 %. */
export function percent(part: number, whole: number): string {
  if (!(whole > 0)) return '0 %';
  const share = (100 * part) / whole;
  if (share > 0 && share < 1) return '< 1 %';
  if (share > 99 && share < 100) return '> 99 %';
  return `${Math.round(share)} %`;
}

/** `287 ms`, `2.31 s`, `4 min 05 s`, `1 h 02 min`. */
export function duration(ms: number): string {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${twoDigits(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${twoDigits(minutes % 60)} min`;
}

/** A time still to go: no fractions, because an estimate has none. */
export function eta(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return seconds < 60 ? `${seconds} s` : duration(seconds * 1000);
}

/** A running clock: `0:03`, `12:40`, `1:02:03`. */
export function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  const head = hours > 0 ? `${hours}:${twoDigits(minutes)}` : `${minutes}`;
  return `${head}:${twoDigits(seconds % 60)}`;
}

/**
 * Text from elsewhere (a guest's name, a remote host's message) without what could drive the
 * terminal: control characters become `?`, line ends become spaces.
 */
export function clean(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this removes
  return text.replace(/\s*[\r\n]+\s*/g, ' ').replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '?');
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let scaledValue = Math.max(0, value);
  let unit = 0;
  // 999.5 would round to 1000 of a unit.
  while (scaledValue >= (unit === 0 ? base : base - 0.5) && unit < units.length - 1) {
    scaledValue /= base;
    unit++;
  }
  const digits = unit === 0 || scaledValue >= 99.95 ? 0 : scaledValue >= 9.995 ? 1 : 2;
  return `${scaledValue.toFixed(digits)} ${units[unit]}`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}
