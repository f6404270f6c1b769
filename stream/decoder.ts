/**
 * The decoder of QEMU's migration stream: bytes in, calls of a handler out. No I/O, any chunking, one pass.
 *
 *     stream    = "QEVM"  be32 3  [configuration]  ( section | command )*  ( tail | EOF [vmdesc] )
 *     section   = ( START | PART | END | FULL )  body  footer                    body: see ramDecoder.ts
 *     START     = 0x01  be32 id  u8 length  name  be32 instance  be32 version    FULL = 0x04, the same
 *     PART      = 0x02  be32 id                                                  END  = 0x03, the same
 *     footer    = 0x7e  be32 id
 *     command   = 0x08  be16 command  be16 length  data                          PACKAGED: data is the be32 length of
 *     EOF       = 0x00                                                             the stream that follows
 *     vmdesc    = 0x06  be32 length  JSON
 *     tail      = the rest, from the first section that is not of RAM
 *
 * Sections of devices do not say how long they are. Device state comes after all RAM (or in PACKAGED), so what begins
 * with it is handed over as it is; see deviceState.ts for looking into it.
 *
 * Input is taken for hostile: whatever comes, decoding ends with a StreamError or goes on, in bounded memory.
 */
import { parseConfiguration } from './configuration.js';
import { RAM_SECTION_VERSION, SectionType, STREAM_MAGIC, STREAM_VERSION, StreamCommand } from './constants.js';
import type { Section, StreamHandler, TailReason } from './handler.js';
import { DEFAULT_STREAM_LIMITS, type StreamLimits } from './limits.js';
import { StreamPosition } from './position.js';
import { readBe64 } from './ramBlockList.js';
import { RamDecoder } from './ramDecoder.js';
import { RecordBuffer } from './recordBuffer.js';
import { parseCommand, parseSectionHead, parseVmdesc, sectionKind } from './records.js';

export type StreamState =
  | 'header'
  | 'configuration'
  | 'record'
  | 'ram'
  | 'footer'
  | 'tail'
  | 'after-eof'
  | 'complete'
  | 'ended'
  | 'failed';

export interface StreamDecoderOptions extends Partial<StreamLimits> {
  /** Begin at the first section or command: what PACKAGED contains has no header. */
  readonly withoutHeader?: boolean;
}

export class StreamDecoder {
  readonly #handler: StreamHandler;
  readonly #limits: StreamLimits;
  readonly #position = new StreamPosition();
  readonly #ram: RamDecoder;
  readonly #record: RecordBuffer;
  #state: StreamState;
  #section: Section | null = null;
  #failure: unknown = null;

  constructor(handler: StreamHandler, options: StreamDecoderOptions = {}) {
    this.#handler = handler;
    this.#limits = { ...DEFAULT_STREAM_LIMITS, ...options };
    this.#ram = new RamDecoder(handler, this.#limits, this.#position);
    this.#state = options.withoutHeader ? 'record' : 'header';
    this.#record = new RecordBuffer(options.withoutHeader ? 1 : 8);
  }

  get state(): StreamState {
    return this.#state;
  }

  /** Bytes from the start of the stream to the record being decoded, or waited for. */
  get offset(): number {
    return this.#position.offset;
  }

  /** Flags (`RamFlag`) of the RAM record that the handler is being told of: whether CONTINUE was used, above all. */
  get lastFlags(): number {
    return this.#ram.lastFlags;
  }

  /**
   * Decodes the next bytes of the stream. The chunk may be reused afterwards.
   * @throws StreamError, and again on every later call; whatever the handler threw, likewise
   */
  feed(chunk: Buffer): void {
    if (this.#failure !== null) throw this.#failure;
    try {
      let at = 0;
      while (at < chunk.length) at = this.#step(chunk, at);
      this.#position.nextChunk(chunk.length);
    } catch (error) {
      throw this.#fail(error);
    }
  }

  /**
   * The stream has ended.
   * @throws StreamError VMMIG_STREAM_TRUNCATED where it must not end. Whether a tail is whole, only its reader can tell.
   */
  end(): void {
    if (this.#failure !== null) throw this.#failure;
    if (this.#state === 'ended') return;
    const isWhole = this.#state === 'tail' || this.#state === 'complete' || this.#state === 'after-eof';
    if (!isWhole || this.#record.length > 0) {
      throw this.#fail(this.#position.error('VMMIG_STREAM_TRUNCATED', `The stream ends inside its ${this.#state}`));
    }
    this.#state = 'ended';
    this.#handler.end?.();
  }

  #fail(error: unknown): unknown {
    this.#failure = error;
    this.#state = 'failed';
    return error;
  }

  #step(chunk: Buffer, start: number): number {
    if (this.#state === 'ram') {
      const at = this.#ram.feed(chunk, start);
      if (this.#ram.done) {
        this.#state = 'footer';
        this.#expect(5, at);
      }
      return at;
    }
    if (this.#state === 'tail') {
      this.#handler.tail?.(start === 0 ? chunk : chunk.subarray(start));
      this.#position.recordStart = chunk.length;
      return chunk.length;
    }
    if (this.#state === 'complete' || this.#state === 'ended')
      throw this.#position.corrupt('Bytes after the end of the stream');
    const at = this.#record.fill(chunk, start);
    if (this.#record.complete) this.#advance(at);
    return at;
  }

  /** Begins to gather the record at `at` in the chunk. */
  #expect(need: number, at: number): void {
    this.#position.recordStart = at;
    this.#record.restart(need);
  }

  #advance(at: number): void {
    const bytes = this.#record.view();
    if (this.#state === 'header') this.#header(bytes, at);
    else if (this.#state === 'configuration') this.#configuration(bytes, at);
    else if (this.#state === 'footer') this.#footer(bytes, at);
    else if (this.#state === 'after-eof') this.#vmdesc(bytes, at);
    else this.#sectionOrCommand(bytes, at);
  }

  #header(bytes: Buffer, at: number): void {
    if (bytes.readUInt32BE(0) !== STREAM_MAGIC)
      throw this.#position.corrupt('Not a migration stream: no QEVM at first');
    const version = bytes.readUInt32BE(4);
    if (version !== STREAM_VERSION) throw this.#position.unsupported(`Migration stream of version ${version}`);
    this.#state = 'configuration';
    this.#expect(1, at);
    this.#handler.header?.(version);
  }

  #configuration(bytes: Buffer, at: number): void {
    if (bytes[0] !== SectionType.configuration) {
      this.#state = 'record';
      this.#sectionOrCommand(bytes, at);
      return;
    }
    const parsed = parseConfiguration(bytes, this.#position);
    if (typeof parsed === 'number') {
      this.#record.need = parsed;
      return;
    }
    const capabilities = parsed.decoded.capabilities ?? [];
    if (capabilities.includes('mapped-ram')) throw this.#position.unsupported('Capability mapped-ram');
    this.#ram.hasAddresses = capabilities.includes('x-ignore-shared');
    const raw = this.#record.copy(parsed.lengthBytes);
    this.#state = 'record';
    this.#handler.configuration?.(raw, parsed.decoded);
    // Where the section ends, only the byte after it tells.
    this.#position.recordStart = at - 1;
    this.#record.restart(1, parsed.lengthBytes);
    this.#sectionOrCommand(this.#record.view(), at);
  }

  #sectionOrCommand(bytes: Buffer, at: number): void {
    const type = bytes[0]!;
    if (type === SectionType.start || type === SectionType.full) this.#newSection(bytes, at);
    else if (type === SectionType.part || type === SectionType.end) this.#nextSection(bytes, at);
    else if (type === SectionType.command) this.#command(bytes, at);
    else if (type === SectionType.eof) this.#eof(at);
    else throw this.#position.corrupt(`Unknown section type 0x${type.toString(16)}`);
  }

  #eof(at: number): void {
    this.#state = 'after-eof';
    this.#expect(1, at);
    this.#handler.eof?.();
  }

  #newSection(bytes: Buffer, at: number): void {
    const head = parseSectionHead(bytes);
    if (typeof head === 'number') {
      this.#record.need = head;
    } else if ('opaqueName' in head) {
      this.#beginTail(bytes[0] === SectionType.full ? 'device-state' : 'opaque-section', head.opaqueName);
    } else {
      if (this.#section !== null) throw this.#position.corrupt('RAM section is started twice');
      if (head.version !== RAM_SECTION_VERSION) throw this.#position.unsupported(`RAM of version ${head.version}`);
      this.#beginSection(head, at);
    }
  }

  #nextSection(bytes: Buffer, at: number): void {
    this.#record.need = 5;
    if (!this.#record.complete) return;
    const id = bytes.readUInt32BE(1);
    if (this.#section?.id !== id) throw this.#position.corrupt(`Part of section ${id}, which was not started`);
    this.#beginSection({ ...this.#section, type: sectionKind(bytes) }, at);
  }

  #beginSection(section: Section, at: number): void {
    this.#section = section;
    this.#state = 'ram';
    this.#expect(1, at);
    this.#ram.begin();
    this.#handler.sectionStart?.(section);
  }

  #footer(bytes: Buffer, at: number): void {
    const section = this.#section!;
    if (bytes[0] !== SectionType.footer || bytes.readUInt32BE(1) !== section.id) {
      throw this.#position.corrupt(`No footer after section ${section.id}`);
    }
    this.#state = 'record';
    this.#expect(1, at);
    this.#handler.sectionEnd?.(section);
  }

  #command(bytes: Buffer, at: number): void {
    const parsed = parseCommand(bytes, this.#limits, this.#position);
    if (typeof parsed === 'number') {
      this.#record.need = parsed;
      return;
    }
    const { command, dataStart } = parsed;
    if (command === StreamCommand.postcopyAdvise) this.#advise(bytes.subarray(dataStart));
    const raw = this.#record.detach();
    this.#expect(1, at);
    if (command === StreamCommand.packaged) this.#handler.packaged?.(raw.subarray(dataStart), raw);
    else this.#handler.command?.(command, raw.subarray(dataStart), raw);
  }

  /** Sixteen bytes when RAM takes part in post-copy, none when only disk bitmaps do. */
  #advise(data: Buffer): void {
    if (data.length === 0) return;
    if (data.length !== 16) throw this.#position.corrupt(`POSTCOPY_ADVISE of ${data.length} bytes`);
    this.#ram.pageSizeSummary = readBe64(data, 0);
  }

  #vmdesc(bytes: Buffer, at: number): void {
    if (bytes[0] !== SectionType.vmdesc) throw this.#position.corrupt('Bytes after the end of the stream');
    this.#record.need = parseVmdesc(bytes, this.#limits, this.#position);
    if (!this.#record.complete) return;
    const raw = this.#record.detach();
    this.#state = 'complete';
    this.#expect(1, at);
    this.#handler.vmdesc?.(raw.subarray(5), raw);
  }

  #beginTail(reason: TailReason, name: string): void {
    const begun = this.#record.detach();
    this.#state = 'tail';
    this.#handler.tailStart?.(reason, name);
    this.#handler.tail?.(begun);
  }
}
