/**
 * What the stream has besides pages. QEMU takes it in this order (migration/savevm.c, 7.2 to 10.0):
 *
 *     begin       header  configuration  OPEN_RETURN_PATH  PING 1  POSTCOPY_ADVISE  ram START{MEM_SIZE}
 *     switchOver  RAM_DISCARD+  PACKAGED{ POSTCOPY_LISTEN  device sections  PING 3  POSTCOPY_RUN }
 *     end         ram END  EOF
 *     resume      RECV_BITMAP (of each block)  POSTCOPY_RESUME
 *
 * PING 3 is answered when the device state has been loaded. A resumed stream begins in the middle: no header, and the
 * return path is open already.
 */
import { encodePing, encodePostcopyAdvise } from '../../../stream/commands.js';
import { encodeConfiguration } from '../../../stream/configuration.js';
import { SectionType, StreamCommand } from '../../../stream/constants.js';
import { StreamDecoder } from '../../../stream/decoder.js';
import { StreamEncoder } from '../../../stream/encoder.js';
import type { RamBlock } from '../../../stream/handler.js';
import { pageBytes } from '../../digest.js';
import { RelayError } from '../../errors.js';
import type { BlockPages } from './blockPages.js';

/** QEMU's own number for the PING after the device state. */
export const loadedPing = 3;
/** As many as fit into a command of 65,535 bytes with the longest of names. */
const rangesPerDiscard = 4000;

export interface RamSection {
  readonly id: number;
  readonly version: number;
}

export function beginBytes(head: Buffer, ramSection: RamSection, blocks: readonly RamBlock[]): Buffer {
  const encoder = new StreamEncoder();
  let hostPageSizes = 0;
  for (const block of blocks) hostPageSizes |= block.pageSizeBytes ?? pageBytes;
  encoder.header();
  encoder.configuration(ownConfiguration(head));
  encoder.command(StreamCommand.openReturnPath);
  encoder.command(StreamCommand.ping, encodePing(1));
  encoder.command(StreamCommand.postcopyAdvise, encodePostcopyAdvise(hostPageSizes));
  encoder.sectionStart('start', ramSection.id, 'ram', 0, ramSection.version);
  encoder.ramBlocks(blocks);
  encoder.eos();
  encoder.footer(ramSection.id);
  return encoder.take();
}

/**
 * The source's configuration, but for x-ignore-shared: both sides have to agree on it, and memory that the source left
 * out of its stream is in this one.
 */
function ownConfiguration(head: Buffer): Buffer {
  let own: Buffer | null = null;
  const decoder = new StreamDecoder({
    configuration: (raw, { machine, capabilities }) => {
      own = capabilities?.includes('x-ignore-shared') ? encodeConfiguration(machine) : raw;
    },
    page() {},
    zeroPage() {},
  });
  // Where a configuration ends only the byte after it tells.
  decoder.feed(Buffer.concat([head, Buffer.from([0])]));
  if (own === null) throw new RelayError('VMMIG_RELAY_STREAM', 'the stream of the source has no configuration');
  return own;
}

/** The commands that make QEMU drop these runs of pages (pairs of first page and count). */
export function discardBytes({ block }: BlockPages, runs: readonly number[]): Buffer[] {
  const commands: Buffer[] = [];
  for (let at = 0; at < runs.length; at += 2 * rangesPerDiscard) {
    commands.push(discardCommand(block.name, runs, at, Math.min(at + 2 * rangesPerDiscard, runs.length)));
  }
  return commands;
}

function discardCommand(name: string, runs: readonly number[], from: number, to: number): Buffer {
  // First page and count, both as be64 of bytes. There may be a hundred thousand, and the guest stands still meanwhile.
  const halves = new Uint32Array(2 * (to - from));
  for (let at = from, half = 0; at < to; at++, half += 2) {
    const pages = runs[at]!;
    halves[half] = pages >>> 20;
    halves[half + 1] = pages << 12;
  }
  const ranges = Buffer.from(halves.buffer).swap32();
  const head = Buffer.alloc(8 + name.length);
  head[0] = SectionType.command;
  head.writeUInt16BE(StreamCommand.postcopyRamDiscard, 1);
  head.writeUInt16BE(head.length - 5 + ranges.length, 3);
  head[6] = name.length;
  head.write(name, 7, 'latin1');
  return Buffer.concat([head, ranges]);
}

export function packageBytes(deviceSections: Buffer): Buffer {
  const nested = new StreamEncoder({ batchBytes: deviceSections.length + 4096 });
  nested.command(StreamCommand.postcopyListen);
  nested.raw(deviceSections);
  nested.command(StreamCommand.ping, encodePing(loadedPing));
  nested.command(StreamCommand.postcopyRun);
  const bytes = nested.take();
  const encoder = new StreamEncoder({ batchBytes: bytes.length + 4096 });
  encoder.packaged(bytes);
  return encoder.take();
}

export function endBytes(ramSection: RamSection): Buffer {
  const encoder = new StreamEncoder();
  encoder.sectionContinue('end', ramSection.id);
  encoder.eos();
  encoder.footer(ramSection.id);
  encoder.eof();
  return encoder.take();
}

export function resumeBytes(blocks: readonly RamBlock[]): Buffer {
  const encoder = new StreamEncoder();
  for (const { name } of blocks) {
    encoder.command(
      StreamCommand.receivedBitmap,
      Buffer.concat([Buffer.from([name.length]), Buffer.from(name, 'latin1')]),
    );
  }
  encoder.command(StreamCommand.postcopyResume);
  return encoder.take();
}
