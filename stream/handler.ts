/** What a decoded migration stream consists of, and the interface through which the decoder tells of it. */

/** QEMU's unit of guest memory, as the stream's MEM_SIZE record announces it. */
export interface RamBlock {
  readonly name: string;
  /** Place in the announcement, from 0. */
  readonly index: number;
  readonly lengthBytes: number;
  /** Announced only when post-copy is on and the host page is not the target's (huge pages). */
  readonly pageSizeBytes: number | null;
  /** Guest physical address; announced only with x-ignore-shared. */
  readonly gpa: number | null;
}

export type SectionKind = 'start' | 'part' | 'end' | 'full';

/** A section of RAM. Sections of devices are never split up: they are the tail. */
export interface Section {
  readonly type: SectionKind;
  readonly id: number;
  readonly name: string;
  readonly instance: number;
  readonly version: number;
}

export interface StreamConfiguration {
  readonly machine: string;
  /** The capabilities that both sides must agree on; null when the stream has no such subsection. */
  readonly capabilities: readonly string[] | null;
  readonly subsections: readonly string[];
}

/**
 * - `device-state`: the first non-RAM FULL section; nothing but device state, EOF and vmdesc follow.
 * - `opaque-section`: an iterative section whose end only the device that wrote it could tell.
 */
export type TailReason = 'device-state' | 'opaque-section';

/**
 * Called synchronously and in stream order. A Buffer named `raw`, `data` or `nested` belongs to the handler; `source`
 * and the bytes of `tail` are the decoder's or the caller's, and valid only during the call.
 */
export interface StreamHandler {
  header?(version: number): void;
  /** @param raw the configuration section with its subsections, type byte included */
  configuration?(raw: Buffer, decoded: StreamConfiguration): void;
  /** Every command but PACKAGED. */
  command?(command: number, data: Buffer, raw: Buffer): void;
  /** @param nested the stream inside: LISTEN, device state, RUN */
  packaged?(nested: Buffer, raw: Buffer): void;
  sectionStart?(section: Section): void;
  /** @param raw the whole MEM_SIZE record */
  ramBlocks?(blocks: readonly RamBlock[], raw: Buffer): void;
  /** A page: `source[start .. start + 4096)`. */
  page(block: RamBlock, pageIndex: number, source: Buffer, start: number): void;
  /** A page of one repeated byte, almost always 0. */
  zeroPage(block: RamBlock, pageIndex: number, fill: number): void;
  /** A RAM record that is about no page. */
  ramRecord?(record: 'multifd-flush'): void;
  /** After the section's EOS record and footer. */
  sectionEnd?(section: Section): void;
  /** From here on the stream is handed over as it is. */
  tailStart?(reason: TailReason, sectionName: string): void;
  tail?(bytes: Buffer): void;
  /** The EOF byte of a stream whose device state was packaged (post-copy). */
  eof?(): void;
  /** The description after such an EOF, which QEMU leaves out in post-copy. */
  vmdesc?(json: Buffer, raw: Buffer): void;
  /** After `StreamDecoder.end()`, if the stream may end there. */
  end?(): void;
}
