/**
 * The configuration section, which says what both sides must agree on.
 *
 *     0x07  be32 length  machine name
 *     ( 0x05  u8 length  name  be32 version  body )*
 *
 *     configuration/capabilities      be32 count  ( u8 length  name )*
 *     configuration/target-page-bits  be32 bits
 *     configuration/uuid              16 bytes
 *
 * A subsection does not say how long it is, so an unknown one ends what can be understood.
 */
import { SectionType } from './constants.js';
import type { StreamConfiguration } from './handler.js';
import type { StreamPosition } from './position.js';

const MAX_MACHINE_BYTES = 255;
const MAX_CAPABILITIES = 256;

export interface ParsedConfiguration {
  readonly lengthBytes: number;
  readonly decoded: StreamConfiguration;
}

/** Gives the section, or the number of bytes needed to get further. The byte after the section is needed, too. */
export function parseConfiguration(bytes: Buffer, position: StreamPosition): ParsedConfiguration | number {
  if (bytes.length < 5) return 5;
  const machineLength = bytes.readUInt32BE(1);
  if (machineLength > MAX_MACHINE_BYTES) throw position.corrupt(`Machine name of ${machineLength} bytes`);
  let at = 5 + machineLength;
  let capabilities: string[] | null = null;
  const subsections: string[] = [];
  for (;;) {
    if (bytes.length <= at) return at + 1;
    if (bytes[at] !== SectionType.subsection) break;
    if (bytes.length < at + 2) return at + 2;
    const nameEnd = at + 2 + bytes[at + 1]!;
    const body = nameEnd + 4;
    if (bytes.length < body) return body;
    const name = bytes.toString('latin1', at + 2, nameEnd);
    if (subsections.includes(name)) throw position.corrupt(`Subsection ${name} appears twice`);
    if (bytes.readUInt32BE(nameEnd) !== 1) throw position.unsupported(`Version of subsection ${name} is not 1`);
    if (name === 'configuration/capabilities') {
      const list = parseCapabilities(bytes, body, position);
      if (typeof list === 'number') return list;
      capabilities = list.names;
      at = list.end;
    } else if (name === 'configuration/target-page-bits') {
      at = body + 4;
      if (bytes.length < at) return at;
      if (bytes.readUInt32BE(body) !== 12) throw position.unsupported('Guest pages are not of 4096 bytes');
    } else if (name === 'configuration/uuid') {
      at = body + 16;
      if (bytes.length < at) return at;
    } else {
      throw position.unsupported(`Unknown configuration subsection ${JSON.stringify(name)}`);
    }
    subsections.push(name);
  }
  const machine = bytes.toString('latin1', 5, 5 + machineLength);
  return { lengthBytes: at, decoded: { machine, capabilities, subsections } };
}

function parseCapabilities(bytes: Buffer, start: number, position: StreamPosition) {
  let at = start + 4;
  if (bytes.length < at) return at;
  const count = bytes.readUInt32BE(start);
  if (count > MAX_CAPABILITIES) throw position.corrupt(`${count} capabilities`);
  const names: string[] = [];
  while (names.length < count) {
    if (bytes.length <= at) return at + 1;
    const end = at + 1 + bytes[at]!;
    if (bytes.length < end) return end;
    names.push(bytes.toString('latin1', at + 1, end));
    at = end;
  }
  return { names, end: at };
}

/** The section for a machine type (for example `pc-q35-7.2`) and, if any must be agreed on, capabilities. */
export function encodeConfiguration(machine: string, capabilities: readonly string[] | null = null): Buffer {
  const parts = [Buffer.from([SectionType.configuration]), be32(machine.length), Buffer.from(machine, 'latin1')];
  if (capabilities !== null) {
    parts.push(Buffer.from([SectionType.subsection]), counted('configuration/capabilities'), be32(1));
    parts.push(be32(capabilities.length), ...capabilities.map(counted));
  }
  return Buffer.concat(parts);
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function counted(text: string): Buffer {
  return Buffer.concat([Buffer.from([text.length]), Buffer.from(text, 'latin1')]);
}
