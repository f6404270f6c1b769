/**
 * The return path of a source QEMU, as its destination keeps it: libvirt has QEMU open one. QEMU then does not hang up
 * when it has sent everything, but waits to be told that all has arrived, so that the end has to be found in the stream:
 *
 *     … device state  EOF  0x06  be32 length  JSON      and nothing more
 */
import { StreamCommand } from '../../stream/constants.js';
import { splitTail } from '../../stream/deviceState.js';
import type { RamBlock, Section, StreamConfiguration, StreamHandler, TailReason } from '../../stream/handler.js';
import { LastBytes } from '../../stream/lastBytes.js';
import { encodeReturnPath } from '../../stream/returnPath.js';

/** Longer than the JSON gets. */
const keptTailBytes = 4 * 1024 * 1024;
const endOfJson = 0x7d;

/** Hands the stream's parts on, and answers QEMU. */
export class ReturnPath implements StreamHandler {
  readonly #parts: StreamHandler;
  readonly #answer: (bytes: Buffer) => void;
  readonly #last = new LastBytes(keptTailBytes);
  #isOpen = false;
  #isComplete = false;

  constructor(parts: StreamHandler, answer: (bytes: Buffer) => void) {
    this.#parts = parts;
    this.#answer = answer;
  }

  /** QEMU has sent everything, and waits. */
  get isComplete(): boolean {
    return this.#isComplete;
  }

  /** All has arrived: QEMU's migration is complete. */
  shut(): void {
    if (this.#isOpen) this.#answer(encodeReturnPath({ type: 'shut', value: 0 }));
  }

  command(command: number, data: Buffer, raw: Buffer): void {
    if (command === StreamCommand.openReturnPath) this.#isOpen = true;
    if (command === StreamCommand.ping && data.length === 4)
      this.#answer(encodeReturnPath({ type: 'pong', value: data.readUInt32BE(0) }));
    this.#parts.command?.(command, data, raw);
  }

  tail(bytes: Buffer): void {
    this.#parts.tail?.(bytes);
    this.#last.push(bytes);
    this.#isComplete = this.#isOpen && bytes.at(-1) === endOfJson && endsWithDescription(this.#last.bytes());
  }

  header(version: number): void {
    this.#parts.header?.(version);
  }

  configuration(raw: Buffer, decoded: StreamConfiguration): void {
    this.#parts.configuration?.(raw, decoded);
  }

  packaged(nested: Buffer, raw: Buffer): void {
    this.#parts.packaged?.(nested, raw);
  }

  sectionStart(section: Section): void {
    this.#parts.sectionStart?.(section);
  }

  ramBlocks(blocks: readonly RamBlock[], raw: Buffer): void {
    this.#parts.ramBlocks?.(blocks, raw);
  }

  page(block: RamBlock, pageIndex: number, source: Buffer, start: number): void {
    this.#parts.page(block, pageIndex, source, start);
  }

  zeroPage(block: RamBlock, pageIndex: number, fill: number): void {
    this.#parts.zeroPage(block, pageIndex, fill);
  }

  ramRecord(record: 'multifd-flush'): void {
    this.#parts.ramRecord?.(record);
  }

  sectionEnd(section: Section): void {
    this.#parts.sectionEnd?.(section);
  }

  tailStart(reason: TailReason, sectionName: string): void {
    this.#parts.tailStart?.(reason, sectionName);
  }

  eof(): void {
    this.#parts.eof?.();
  }

  vmdesc(json: Buffer, raw: Buffer): void {
    this.#parts.vmdesc?.(json, raw);
  }

  end(): void {
    this.#parts.end?.();
  }
}

function endsWithDescription(tail: Buffer): boolean {
  try {
    return splitTail(tail).vmdesc !== null;
  } catch {
    return false;
  }
}
