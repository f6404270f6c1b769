/**
 * The heads of sections, and commands; the grammar is in decoder.ts. Each function is given the bytes of the record that
 * have come so far, and answers with the number of bytes it needs to get further, or with what the record says.
 */
import { RAM_SECTION_NAME, SectionType, StreamCommand } from './constants.js';
import type { Section, SectionKind } from './handler.js';
import type { StreamLimits } from './limits.js';
import type { StreamPosition } from './position.js';

const SECTION_KINDS: Partial<Record<number, SectionKind>> = {
  [SectionType.start]: 'start',
  [SectionType.part]: 'part',
  [SectionType.end]: 'end',
  [SectionType.full]: 'full',
};

export function sectionKind(bytes: Buffer): SectionKind {
  return SECTION_KINDS[bytes[0]!]!;
}

/** START or FULL. Of a section that is not RAM, only the name; what follows it is not looked at. */
export function parseSectionHead(bytes: Buffer): number | Section | { readonly opaqueName: string } {
  if (bytes.length < 6) return 6;
  const nameEnd = 6 + bytes[5]!;
  if (bytes.length < nameEnd) return nameEnd;
  const name = bytes.toString('latin1', 6, nameEnd);
  if (name !== RAM_SECTION_NAME) return { opaqueName: name };
  if (bytes.length < nameEnd + 8) return nameEnd + 8;
  return {
    type: sectionKind(bytes),
    id: bytes.readUInt32BE(1),
    name,
    instance: bytes.readUInt32BE(nameEnd),
    version: bytes.readUInt32BE(nameEnd + 4),
  };
}

export interface ParsedCommand {
  readonly command: number;
  /** Where the data begin; for PACKAGED, where the nested stream does. */
  readonly dataStart: number;
}

export function parseCommand(bytes: Buffer, limits: StreamLimits, position: StreamPosition): number | ParsedCommand {
  if (bytes.length < 5) return 5;
  const command = bytes.readUInt16BE(1);
  const dataBytes = bytes.readUInt16BE(3);
  if (bytes.length < 5 + dataBytes) return 5 + dataBytes;
  if (command !== StreamCommand.packaged) return { command, dataStart: 5 };

  if (dataBytes !== 4) throw position.corrupt(`PACKAGED with ${dataBytes} bytes of data`);
  const nestedBytes = bytes.readUInt32BE(5);
  if (nestedBytes > limits.packagedBytes) {
    throw position.unsupported(`PACKAGED of ${nestedBytes} bytes; the limit is ${limits.packagedBytes}`);
  }
  return bytes.length < 9 + nestedBytes ? 9 + nestedBytes : { command, dataStart: 9 };
}

/** VMDESC, where it follows a packaged device state's EOF: its length with the head. */
export function parseVmdesc(bytes: Buffer, limits: StreamLimits, position: StreamPosition): number {
  if (bytes.length < 5) return 5;
  const jsonBytes = bytes.readUInt32BE(1);
  if (jsonBytes > limits.vmdescBytes) {
    throw position.unsupported(`Description of ${jsonBytes} bytes; the limit is ${limits.vmdescBytes}`);
  }
  return 5 + jsonBytes;
}
