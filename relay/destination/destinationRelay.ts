/**
 * The relay beside the destination QEMU: puts back from the local disk what the source only referred
 * to, writes everything into QEMU as a stream of its own making, and compares digests at the end.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import type { RamBlock } from '../../stream/handler.js';
import { BufferPool } from '../bufferPool.js';
import { newCounters, type RelayCounters } from '../counters.js';
import { MemoryDigest, pageBytes, RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { decodeBatch, maxReferencePages, recordKind, unpackPages } from '../link/batch.js';
import type { LinkCredentials } from '../link/connection.js';
import { type Frame, frameType } from '../link/frames.js';
import { type Listener, type ListenOptions, listen } from '../link/handshake.js';
import { Link } from '../link/link.js';
import type { BlocksFrame } from '../source/streamToFrames.js';
import { QemuStream } from './qemuStream.js';
import { type Restore, Restores } from './restores.js';

export interface DestinationRelayOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** Where the destination QEMU listens for its migration. */
  readonly qemuSocketPath: string;
  /** Disks by the index that references name. The caller closes them. */
  readonly disks: readonly DiskReader[];
  readonly silenceLimitMs?: number;
}

export interface DestinationRelayState {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  /** Restores under way. */
  readonly pendingRestores: number;
}

/** Being read from disk: enough to read in disk order and in long pieces. */
const maxReadingBytes = 8 * 1024 * 1024;
/** Written and not yet taken by QEMU, beyond which no more is read from disk. */
const maxBacklogBytes = 4 * 1024 * 1024;
const maxBlocks = 1024;
const maxGuestPages = 2 ** 32;

export class DestinationRelay implements AsyncDisposable {
  readonly port: number;
  /** Resolves when QEMU has been given everything and the roots are equal; rejects with a `RelayError`. */
  readonly finished: Promise<void>;
  readonly #options: DestinationRelayOptions;
  readonly #counters = newCounters();
  readonly #listener: Listener;
  #link: Link | null = null;
  #qemu: QemuStream | null = null;
  #digest: MemoryDigest | null = null;
  readonly #digester: RunDigester;
  readonly #pool = new BufferPool(maxReferencePages * pageBytes, 32);
  #restores = new Restores([]);
  #pagesOfBlock: number[] = [];
  readonly #queue: Frame[] = [];
  #isWorking = false;
  /** References of a batch that are not in place yet. */
  readonly #unresolved = new Map<number, number>();
  readonly #waitingForDisk: Restore[] = [];
  #readingBytes = 0;
  /** Asked for again, by batch and record. */
  readonly #waiting = new Map<string, Restore>();
  #acknowledgements: number[] = [];
  #idle: (() => void) | null = null;
  #settle!: { resolve: () => void; reject: (error: RelayError) => void };
  #settled = false;

  private constructor(options: DestinationRelayOptions, listener: Listener) {
    this.#options = options;
    this.#digester = new RunDigester(options.credentials.key);
    this.#listener = listener;
    this.port = listener.port;
    this.finished = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.finished.catch(() => {});
  }

  /** Listens for the source relay. QEMU must be waiting for its migration by the time the first frame arrives. */
  static async start(options: DestinationRelayOptions): Promise<DestinationRelay> {
    const relay = new DestinationRelay(options, await listen(options.credentials, options.listen));
    relay.#join().catch((error: RelayError) => relay.#fail(error));
    return relay;
  }

  get state(): DestinationRelayState {
    return {
      counters: this.#counters,
      bytesOnWire: this.#link?.bytesOnWire ?? 0,
      rttMs: this.#link?.rttMs ?? 0,
      pendingRestores: this.#restores.size,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#settled) this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
    await this.#listener[Symbol.asyncDispose]();
    await this.#link?.close();
    this.#qemu?.destroy();
  }

  async #join(): Promise<void> {
    const peers = await this.#listener.joined;
    const { silenceLimitMs } = this.#options;
    this.#link = new Link(
      peers,
      {
        ordered: (frame) => {
          this.#queue.push(frame);
          if (!this.#isWorking) void this.#work();
        },
        immediate: (frame) => this.#resent(frame),
        lost: (cause) => this.#fail(cause),
      },
      silenceLimitMs === undefined ? {} : { silenceLimitMs },
    );
  }

  /** Handles the ordered frames, one at a time, no faster than QEMU takes the pages. */
  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      this.#qemu ??= await QemuStream.connect(this.#options.qemuSocketPath, (error) => this.#fail(error));
      if (this.#settled) this.#qemu.destroy();
      this.#qemu.onProgress = () => this.#startRestores(this.#qemu!);
      for (let frame = this.#queue.shift(); frame !== undefined && !this.#settled; frame = this.#queue.shift()) {
        await this.#handle(frame, this.#qemu);
        await this.#qemu.drained();
      }
    } catch (thrown) {
      this.#fail(thrown instanceof RelayError ? thrown : new RelayError('VMMIG_LINK_PROTOCOL', String(thrown), thrown));
    }
    this.#isWorking = false;
  }

  async #handle(frame: Frame, qemu: QemuStream): Promise<void> {
    switch (frame.type) {
      case frameType.raw:
        qemu.raw(frame.payload);
        break;
      case frameType.blocks:
        this.#useBlocks(frame.payload, qemu);
        break;
      case frameType.batch:
        this.#batch(frame, qemu);
        return;
      case frameType.endOfRam:
        await this.#restored();
        qemu.endOfRam();
        break;
      case frameType.tail:
        await this.#restored();
        this.#digest ??= new MemoryDigest([]);
        this.#digest.opaque(frame.payload);
        qemu.raw(frame.payload);
        break;
      case frameType.root:
        await this.#restored();
        await this.#compare(frame.payload, qemu);
        return;
    }
    this.#acknowledge(frame.sequence);
  }

  #useBlocks(payload: Buffer, qemu: QemuStream): void {
    const { sectionId, blocks } = parseBlocks(payload);
    this.#digest = new MemoryDigest(blocks);
    this.#pagesOfBlock = blocks.map(({ lengthBytes }) => Math.ceil(lengthBytes / pageBytes));
    this.#restores = new Restores(this.#pagesOfBlock);
    this.#counters.totalPages = this.#pagesOfBlock.reduce((sum, pages) => sum + pages, 0);
    const ramBlocks: RamBlock[] = blocks.map((block, index) => ({ ...block, index, pageSizeBytes: null, gpa: null }));
    qemu.useBlocks(sectionId, ramBlocks);
  }

  #batch(frame: Frame, qemu: QemuStream): void {
    const { records, pages } = decodeBatch(frame.payload, this.#pagesOfBlock);
    let at = 0;
    let references = 0;
    for (const [index, run] of records.entries()) {
      this.#restores.overtake(run.block, run.page, run.count);
      if (run.kind === recordKind.fill) {
        this.#digest!.setFill(run.block, run.page, run.count, run.fill);
        this.#counters.pages.zero += run.count;
        qemu.fill(run.block, run.page, run.count, run.fill);
      } else if (run.kind === recordKind.bytes) {
        const bytes = pages.subarray(at, at + run.count * pageBytes);
        this.#digest!.setRun(run.block, run.page, 0, run.count, this.#digester.digest(bytes));
        qemu.pages(run.block, run.page, run.count, bytes, 0);
        this.#counters.pages.sent += run.count;
        at += bytes.length;
      } else {
        references++;
        this.#waitingForDisk.push(this.#restores.begin(frame.sequence, index, run));
      }
    }
    qemu.flush();
    this.#startRestores(qemu);
    if (references > 0) this.#unresolved.set(frame.sequence, references);
    else this.#acknowledge(frame.sequence);
  }

  /** No faster than QEMU takes the pages: what it has not taken would only pile up here. */
  #startRestores(qemu: QemuStream): void {
    while (this.#readingBytes < maxReadingBytes && qemu.backlogBytes < maxBacklogBytes && !this.#settled) {
      const restore = this.#waitingForDisk.shift();
      if (restore === undefined) return;
      const lengthBytes = restore.run.count * pageBytes;
      this.#readingBytes += lengthBytes;
      void this.#restore(restore, qemu).finally(() => {
        this.#readingBytes -= lengthBytes;
        this.#startRestores(qemu);
      });
    }
  }

  /** Reads a run from the disk. Whatever is wrong with it, the source still has the bytes. */
  async #restore(restore: Restore, qemu: QemuStream): Promise<void> {
    const { run, sequence, record } = restore;
    const lengthBytes = run.count * pageBytes;
    let bytes: Buffer | null = null;
    try {
      const allocate = () => this.#pool.acquire().subarray(0, lengthBytes);
      bytes = (await this.#options.disks[run.disk]?.read(run.diskOffsetBytes, lengthBytes, allocate)) ?? null;
    } catch {
      // Beyond the end, or unreadable: as good as a mismatch.
    }
    if (this.#settled) return;
    if (bytes !== null) this.#counters.bytes.restored += lengthBytes;
    if (bytes !== null && this.#digester.digest(bytes).equals(run.digest!)) {
      this.#counters.pages.restored += run.count;
      this.#finish(restore, bytes, qemu);
    } else {
      this.#waiting.set(key(sequence, record), restore);
      const payload = Buffer.alloc(2);
      payload.writeUInt16BE(record);
      this.#counters.pages.mismatched += run.count;
      this.#link!.send(frameType.resendRequest, sequence, payload);
    }
    if (bytes !== null) this.#pool.release(Buffer.from(bytes.buffer));
  }

  #resent(frame: Frame): void {
    if (frame.type !== frameType.resend)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${frame.type}`);
    if (frame.payload.length < 3) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent nothing');
    const name = key(frame.sequence, frame.payload.readUInt16BE(0));
    const restore = this.#waiting.get(name);
    if (restore === undefined || this.#qemu === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent what nobody asked for');
    this.#waiting.delete(name);
    const bytes = unpackPages(frame.payload[2]!, frame.payload.subarray(3), restore.run.count * pageBytes);
    if (!this.#digester.digest(bytes).equals(restore.run.digest!))
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent other pages than it had referred to');
    this.#finish(restore, bytes, this.#qemu);
  }

  /** Places those pages of the run of which no newer version has arrived. */
  #finish(restore: Restore, bytes: Buffer, qemu: QemuStream): void {
    const { run, overtaken, sequence } = restore;
    for (let from = 0; from < run.count; ) {
      if (overtaken[from] === 1) {
        from++;
        continue;
      }
      let to = from + 1;
      while (to < run.count && overtaken[to] === 0) to++;
      this.#digest!.setRun(run.block, run.page, from, to, run.digest!);
      qemu.pages(run.block, run.page + from, to - from, bytes, from * pageBytes);
      from = to;
    }
    qemu.flush();
    this.#restores.finish(restore);
    const left = this.#unresolved.get(sequence)! - 1;
    if (left > 0) this.#unresolved.set(sequence, left);
    else {
      this.#unresolved.delete(sequence);
      this.#acknowledge(sequence);
    }
    if (this.#restores.size === 0) this.#idle?.();
  }

  async #restored(): Promise<void> {
    if (this.#restores.size === 0 || this.#settled) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
    this.#idle = null;
  }

  async #compare(root: Buffer, qemu: QemuStream): Promise<void> {
    const isEqual = (this.#digest ?? new MemoryDigest([])).root().equals(root);
    this.#link!.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    this.#settled = true;
    await qemu.end();
    this.#counters.bytes.stream = qemu.bytesWritten;
    this.#settle.resolve();
  }

  /** Several at once, where several are due: an acknowledgement a batch would be much overhead for references. */
  #acknowledge(sequence: number): void {
    this.#acknowledgements.push(sequence);
    if (this.#acknowledgements.length > 1) return;
    setImmediate(() => {
      const payload = Buffer.allocUnsafe(this.#acknowledgements.length * 4);
      this.#acknowledgements.forEach((value, at) => {
        payload.writeUInt32BE(value, at * 4);
      });
      this.#acknowledgements = [];
      this.#link?.send(frameType.acknowledge, 0, payload);
    });
  }

  #fail(error: RelayError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#link?.send(frameType.failure, 0, Buffer.from(error.message));
    void this.#link?.close();
    this.#qemu?.destroy();
    this.#idle?.();
    this.#settle.reject(error);
  }
}

function key(sequence: number, record: number): string {
  return `${sequence}/${record}`;
}

function parseBlocks(payload: Buffer): BlocksFrame {
  let frame: BlocksFrame;
  try {
    frame = JSON.parse(payload.toString('utf8')) as BlocksFrame;
  } catch (cause) {
    throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a malformed list of blocks', cause);
  }
  const { sectionId, blocks } = frame;
  const isSound =
    Number.isInteger(sectionId) &&
    Array.isArray(blocks) &&
    blocks.length <= maxBlocks &&
    blocks.every(
      ({ name, lengthBytes }) => typeof name === 'string' && Number.isSafeInteger(lengthBytes) && lengthBytes >= 0,
    ) &&
    blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0) <= maxGuestPages * pageBytes;
  if (!isSound) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent a malformed list of blocks');
  return frame;
}
