/** What a captured migration stream contains: counts, not contents. In one pass and bounded memory. */
import { commandName } from './commands.js';
import { StreamCommand } from './constants.js';
import { StreamDecoder } from './decoder.js';
import { type DeviceSection, describeDevices, splitTail } from './deviceState.js';
import { StreamError, type StreamErrorCode } from './errors.js';
import type { RamBlock, SectionKind, StreamConfiguration, StreamHandler, TailReason } from './handler.js';
import { LastBytes } from './lastBytes.js';
import { PageSet } from './pageSet.js';

export interface BlockSummary {
  readonly name: string;
  readonly lengthBytes: number;
  readonly pageSizeBytes: number | null;
  readonly gpa: number | null;
  /** Records, by kind. A page that was dirtied while it was sent has several. */
  pageRecords: number;
  zeroRecords: number;
  /** Pages that have at least one record. */
  uniquePages: number;
}

export interface CommandSummary {
  readonly name: string;
  count: number;
  /** Data of all of them; the nested stream, for PACKAGED. */
  dataBytes: number;
}

export interface TailSummary {
  readonly reason: TailReason;
  /** Name of the section with which it begins. */
  readonly firstSection: string;
  lengthBytes: number;
}

/** Can be given to `JSON.stringify` as it is. */
export interface StreamSummary {
  lengthBytes: number;
  configuration: StreamConfiguration | null;
  blocks: BlockSummary[];
  /** Sections of RAM. */
  ramSections: Record<SectionKind, number>;
  multifdFlushes: number;
  commands: CommandSummary[];
  tail: TailSummary | null;
  /** From the description at the stream's end; null if there is none, as in post-copy. */
  devices: DeviceSection[] | null;
  totals: { ramBytes: number; pageRecords: number; zeroRecords: number; uniquePages: number };
  /** Why the stream could not be decoded to its end; what was decoded until then counts. */
  problem: { code: StreamErrorCode; message: string; offset: number } | null;
}

export interface SummaryOptions {
  readonly signal?: AbortSignal;
  /** How much of the tail is kept to look for the description in; a bit more than this. */
  readonly tailBytes?: number;
}

/**
 * Summarises a stream. A stream that is damaged or not understood is no error: see `problem`.
 * @throws whatever `chunks` throws, and the signal's reason
 */
export async function summarise(chunks: AsyncIterable<Buffer>, options: SummaryOptions = {}): Promise<StreamSummary> {
  const collector = new SummaryCollector(options.tailBytes ?? 64 * 2 ** 20);
  const decoder = new StreamDecoder(collector);
  const { summary } = collector;
  try {
    for await (const chunk of chunks) {
      options.signal?.throwIfAborted();
      summary.lengthBytes += chunk.length;
      decoder.feed(chunk);
    }
    decoder.end();
    collector.readTail(decoder.offset);
  } catch (error) {
    if (!(error instanceof StreamError)) throw error;
    summary.problem = { code: error.code, message: error.message, offset: error.offset };
  }
  collector.addUp();
  return summary;
}

class SummaryCollector implements StreamHandler {
  readonly summary: StreamSummary = {
    lengthBytes: 0,
    configuration: null,
    blocks: [],
    ramSections: { start: 0, part: 0, end: 0, full: 0 },
    multifdFlushes: 0,
    commands: [],
    tail: null,
    devices: null,
    totals: { ramBytes: 0, pageRecords: 0, zeroRecords: 0, uniquePages: 0 },
    problem: null,
  };
  readonly #tail: LastBytes;
  readonly #commands = new Map<number, CommandSummary>();
  #pages: PageSet[] = [];

  constructor(tailBytes: number) {
    this.#tail = new LastBytes(tailBytes);
  }

  configuration(_raw: Buffer, decoded: StreamConfiguration): void {
    this.summary.configuration = decoded;
  }

  command(command: number, data: Buffer): void {
    let summary = this.#commands.get(command);
    if (summary === undefined) {
      summary = { name: commandName(command), count: 0, dataBytes: 0 };
      this.#commands.set(command, summary);
      this.summary.commands.push(summary);
    }
    summary.count += 1;
    summary.dataBytes += data.length;
  }

  packaged(nested: Buffer): void {
    this.command(StreamCommand.packaged, nested);
  }

  sectionStart(section: { type: SectionKind }): void {
    this.summary.ramSections[section.type] += 1;
  }

  ramBlocks(blocks: readonly RamBlock[]): void {
    for (const { name, lengthBytes, pageSizeBytes, gpa } of blocks) {
      const counts = { pageRecords: 0, zeroRecords: 0, uniquePages: 0 };
      this.summary.blocks.push({ name, lengthBytes, pageSizeBytes, gpa, ...counts });
      this.#pages.push(new PageSet());
    }
  }

  page(block: RamBlock, pageIndex: number): void {
    this.summary.blocks[block.index]!.pageRecords += 1;
    this.#pages[block.index]!.add(pageIndex);
  }

  zeroPage(block: RamBlock, pageIndex: number): void {
    this.summary.blocks[block.index]!.zeroRecords += 1;
    this.#pages[block.index]!.add(pageIndex);
  }

  ramRecord(): void {
    this.summary.multifdFlushes += 1;
  }

  tailStart(reason: TailReason, firstSection: string): void {
    this.summary.tail = { reason, firstSection, lengthBytes: 0 };
  }

  tail(bytes: Buffer): void {
    this.#tail.push(bytes);
    this.summary.tail!.lengthBytes = this.#tail.totalBytes;
  }

  vmdesc(json: Buffer): void {
    this.summary.devices = describeDevices(json);
  }

  readTail(endOffset: number): void {
    if (this.summary.tail === null) return;
    const bytes = this.#tail.bytes();
    try {
      const { vmdesc } = splitTail(bytes);
      if (vmdesc !== null) this.summary.devices = describeDevices(vmdesc);
    } catch (error) {
      if (!(error instanceof StreamError)) throw error;
      throw new StreamError(error.code, 'The device state has no end', endOffset);
    }
  }

  addUp(): void {
    const { blocks, totals } = this.summary;
    for (const [index, block] of blocks.entries()) {
      block.uniquePages = this.#pages[index]!.size;
      totals.ramBytes += block.lengthBytes;
      totals.pageRecords += block.pageRecords;
      totals.zeroRecords += block.zeroRecords;
      totals.uniquePages += block.uniquePages;
    }
  }
}
