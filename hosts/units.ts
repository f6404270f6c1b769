/** Quantities as operators write them: `200mbit`, `10s`. The option or field says what is measured, the value in what unit. */

const BITS_PER_UNIT: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };
const MS_PER_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1e3, m: 60e3, h: 3600e3 };

/** `200mbit` → 200,000,000. Decimal units, as network rates have. Undefined when `text` is no rate above zero. */
export function parseBitRate(text: string): number | undefined {
  return parseQuantity(text, BITS_PER_UNIT);
}

/** `300ms`, `10s`, `5m`, `1h` → milliseconds. Undefined when `text` is no duration above zero. */
export function parseDurationMs(text: string): number | undefined {
  return parseQuantity(text, MS_PER_UNIT);
}

function parseQuantity(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([a-z]+)$/i.exec(text.trim());
  const factor = units[match?.[2]?.toLowerCase() ?? ''];
  if (!match || factor === undefined) return undefined;
  const value = Math.round(Number(match[1]) * factor);
  return value > 0 && Number.isSafeInteger(value) ? value : undefined;
}
