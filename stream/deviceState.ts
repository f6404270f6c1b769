/**
 * Looks into a complete tail. Not for the path of a migration: that hands the tail on as it is.
 *
 *     tail = device section*  EOF  [ 0x06  be32 length  JSON ]
 *
 * A device's section does not say how long it is, so the end is found from the end; the JSON then describes every
 * section field by field. A stream of a machine with suppress-vmdesc=on has no JSON.
 */
import { SectionType } from './constants.js';
import { StreamError } from './errors.js';

export interface SplitTail {
  /** The sections, without EOF: what PACKAGED carries between LISTEN and RUN. */
  readonly deviceState: Buffer;
  /** The JSON. */
  readonly vmdesc: Buffer | null;
}

export interface DeviceSection {
  readonly name: string;
  readonly instance: number;
  readonly version: number | null;
  /** Of the whole section, head and footer included; added up from the description. */
  readonly lengthBytes: number;
}

const EOF_AND_VMDESC = Buffer.from([SectionType.eof, SectionType.vmdesc]);
const VMDESC_HEAD_BYTES = 6;

/** @throws StreamError VMMIG_STREAM_TRUNCATED if the tail has no end */
export function splitTail(tail: Buffer): SplitTail {
  // JSON has no byte below 0x20, so these two are either the end or, if there is no JSON, a coincidence in device state.
  const end = tail.lastIndexOf(EOF_AND_VMDESC);
  if (end >= 0 && end + VMDESC_HEAD_BYTES <= tail.length) {
    const vmdesc = tail.subarray(end + VMDESC_HEAD_BYTES);
    if (tail.readUInt32BE(end + 2) === vmdesc.length && isJsonObject(vmdesc)) {
      return { deviceState: tail.subarray(0, end), vmdesc };
    }
  }
  if (tail.length === 0 || tail[tail.length - 1] !== SectionType.eof) {
    throw new StreamError('VMMIG_STREAM_TRUNCATED', 'The device state has no end', tail.length);
  }
  return { deviceState: tail.subarray(0, -1), vmdesc: null };
}

/** The sections that the description lists, in stream order; null if it is none. */
export function describeDevices(vmdesc: Buffer): DeviceSection[] | null {
  const description = parse(vmdesc);
  if (!isRecord(description) || !Array.isArray(description.devices)) return null;
  return description.devices.filter(isRecord).map((device) => {
    const name = typeof device.name === 'string' ? device.name : '';
    return {
      name,
      instance: count(device.instance_id, 0),
      version: typeof device.version === 'number' ? device.version : null,
      lengthBytes: SECTION_OVERHEAD_BYTES + name.length + stateBytes(device),
    };
  });
}

/** Type, id, length of the name, instance and version; footer. */
const SECTION_OVERHEAD_BYTES = 1 + 4 + 1 + 4 + 4 + 5;
/** Type, length of the name and version. */
const SUBSECTION_OVERHEAD_BYTES = 1 + 1 + 4;
/** QEMU nests subsections two or three deep; the description may be hostile. */
const MAX_DEPTH = 16;

function stateBytes(state: Record<string, unknown>, depth = 0): number {
  let total = 0;
  for (const field of records(state.fields)) total += count(field.size, 0) * count(field.array_len, 1);
  if (depth === MAX_DEPTH) return total;
  for (const subsection of records(state.subsections)) {
    total += SUBSECTION_OVERHEAD_BYTES + nameBytes(subsection.vmsd_name) + stateBytes(subsection, depth + 1);
  }
  return total;
}

function nameBytes(name: unknown): number {
  return typeof name === 'string' ? name.length : 0;
}

function count(value: unknown, otherwise: number): number {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : otherwise;
}

function records(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isRecord) : [];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isJsonObject(bytes: Buffer): boolean {
  return isRecord(parse(bytes));
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
