/** A destination that does what fileCapture.ts allows, and nothing else. */
import { type FileCapture, HeldPages, heldDisk, type SentSet } from '../../pager/index.js';
import { BatchBuilder, decodeBatch, recordKind } from '../../relay/link/batch.js';
import { digester, pageBytes } from './memory.js';

export class TestDestination {
  readonly builder = new BatchBuilder();
  readonly placed = new Map<string, Buffer>();
  readonly held: HeldPages;
  /** By `disk/offset`, pages. */
  readonly disk = new Map<string, Buffer>();
  isSwitched = false;
  wireBytes = 0;
  resentPages = 0;
  hintedPages = 0;
  confirmedPages = 0;
  /** `block/page`, in the order in which they were placed. */
  readonly order: string[] = [];
  /** Of these, what came as bytes after the switch. */
  readonly bytesOrder: string[] = [];
  /** First pages and lengths of the references to what is held. */
  readonly confirmed: [page: number, count: number][] = [];

  constructor(
    private readonly capture: FileCapture,
    private readonly pagesOfBlock: readonly number[],
    heldLimitBytes: number,
  ) {
    this.held = new HeldPages(digester, heldLimitBytes);
  }

  /** Takes what is in the builder. The batch stays under way: the caller acknowledges. */
  receive(sent: SentSet): void {
    const payload = this.builder.take(true);
    this.wireBytes += payload.length;
    const { records, pages } = decodeBatch(payload, this.pagesOfBlock);
    let at = 0;
    for (const [index, record] of records.entries()) {
      const { kind, block, page, count, fill, disk, diskOffsetBytes, digest } = record;
      if (kind === recordKind.fill)
        for (let i = 0; i < count; i++) this.#place(block, page + i, Buffer.alloc(pageBytes, fill));
      else if (kind === recordKind.reference) {
        const isHeld = disk === heldDisk;
        const found = isHeld
          ? this.held.take(block, page, count, digest!)
          : this.#read(disk, diskOffsetBytes, count, digest!);
        if (isHeld) this.confirmed.push([page, count]);
        if (found !== null && isHeld) this.confirmedPages += count;
        if (found === null) this.resentPages += count;
        this.#placeRun(block, page, found ?? this.capture.bytesOf(sent.token, index)!.bytes);
      } else {
        const bytes = pages.subarray(at, at + count * pageBytes);
        at += bytes.length;
        if (this.isSwitched) {
          for (let i = 0; i < count; i++) this.bytesOrder.push(`${block}/${page + i}`);
          this.#placeRun(block, page, bytes);
        } else {
          this.held.hold(block, page, count, bytes, 0);
          this.hintedPages += count;
        }
      }
    }
  }

  /** Everything there is, each batch acknowledged at once. */
  drain(limitPages = 128): void {
    for (;;) {
      const sent = this.capture.fillBatch(this.builder, limitPages);
      if (sent !== null) {
        this.receive(sent);
        this.capture.acknowledged(sent.token);
      } else if (this.capture.isFrozen || this.capture.isHinted) return;
    }
  }

  #read(disk: number, offset: number, count: number, digest: Buffer): Buffer | null {
    const pages = Array.from({ length: count }, (_, at) => this.disk.get(`${disk}/${offset + at * pageBytes}`));
    const bytes = Buffer.concat(pages.map((page) => page ?? Buffer.alloc(pageBytes, 0xee)));
    return digester.digest(bytes).equals(digest) ? bytes : null;
  }

  #placeRun(block: number, page: number, bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += pageBytes)
      this.#place(block, page + at / pageBytes, Buffer.from(bytes.subarray(at, at + pageBytes)));
  }

  #place(block: number, page: number, bytes: Buffer): void {
    const key = `${block}/${page}`;
    if (this.placed.has(key)) throw new Error(`page ${key} is placed twice`);
    this.placed.set(key, bytes);
    this.order.push(key);
  }
}
