/**
 * The relay beside the destination QEMU: puts back from the local disk what the source only referred
 * to, writes everything into QEMU as a stream of its own making, and compares digests at the end.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import type { RamBlock } from '../../stream/handler.js';
import { newCounters, type RelayCounters } from '../counters.js';
import { MemoryDigest, pageBytes, pagesOfBlocks, RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import { decodeBatch, recordKind } from '../link/batch.js';
import type { LinkCredentials } from '../link/connection.js';
import { type Frame, frameType } from '../link/frames.js';
import { type Listener, type ListenOptions, listen } from '../link/handshake.js';
import { decodeHints, encodeInPlace } from '../link/hints.js';
import { Link } from '../link/link.js';
import { decodeResend, encodeResendRequest } from '../link/resend.js';
import { Acknowledgements } from './acknowledgements.js';
import { parseBlocks } from './blocksFrame.js';
import { FrameQueue } from './frameQueue.js';
import { Prefetcher } from './prefetcher.js';
import { QemuStream } from './qemuStream.js';
import { Restorer } from './restorer.js';

export interface DestinationRelayOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** Where the destination QEMU listens for its migration. */
  readonly qemuSocketPath: string;
  /** Resolves when it does; at once, when left out. */
  readonly qemuListens?: Promise<unknown>;
  /** Disks by the index that references name. The caller closes them. */
  readonly disks: readonly DiskReader[];
  readonly silenceLimitMs?: number;
  /** QEMU gets the state of the devices, without which it cannot run the guest, only by `handOver`. */
  readonly holdsDeviceState?: boolean;
}

export interface DestinationRelayState {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  /** Restores under way. */
  readonly pendingRestores: number;
}

/** Written and not yet taken by QEMU, beyond which no more is read from disk. */
const maxBacklogBytes = 4 * 1024 * 1024;
/** Of device state that is held: hundreds of times what a guest has whose devices keep no memory of their own. */
const maxHeldBytes = 512 * 1024 * 1024;
/** Written ahead of the stream and not yet taken by QEMU: little, because the stream's own pages wait behind it. */
const maxPrefetchBacklogBytes = 1024 * 1024;

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
  #restorer: Restorer | null = null;
  #prefetcher: Prefetcher | null = null;
  #pagesOfBlock: number[] = [];
  readonly #queue = new FrameQueue({
    handle: (frame) => this.#work(frame),
    failed: (error) => this.#fail(error),
    hasEnded: () => this.#settled,
  });
  /** What comes after the guest's memory, where it is held. */
  readonly #held: Buffer[] = [];
  #heldBytes = 0;
  readonly #acknowledgements = new Acknowledgements((payload) => this.#link?.send(frameType.acknowledge, 0, payload));
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

  /** Listens for the source relay. */
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
      pendingRestores: this.#restorer?.pending ?? 0,
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
        ordered: (frame) => this.#queue.add(frame),
        immediate: (frame) => this.#resent(frame),
        lost: (cause) => this.#fail(cause),
      },
      silenceLimitMs === undefined ? {} : { silenceLimitMs },
    );
  }

  /** No faster than QEMU takes the pages. */
  async #work(frame: Frame): Promise<void> {
    const qemu = this.#qemu ?? (await this.#openStream());
    if (this.#settled) return;
    await this.#handle(frame, qemu);
    await qemu.drained();
  }

  async #openStream(): Promise<QemuStream> {
    await this.#options.qemuListens;
    const qemu = await QemuStream.connect(this.#options.qemuSocketPath, (error) => this.#fail(error));
    this.#qemu = qemu;
    if (this.#settled) qemu.destroy();
    qemu.onProgress = () => {
      this.#restorer?.start();
      this.#prefetcher?.start();
    };
    return qemu;
  }

  async #handle(frame: Frame, qemu: QemuStream): Promise<void> {
    switch (frame.type) {
      case frameType.raw:
        qemu.raw(frame.payload);
        break;
      case frameType.blocks:
        this.#useBlocks(frame.payload, qemu);
        break;
      case frameType.hints:
        if (this.#prefetcher === null) throw pagesBeforeBlocks();
        this.#prefetcher.add(decodeHints(frame.payload, this.#pagesOfBlock));
        break;
      case frameType.batch:
        this.#batch(frame, qemu);
        return;
      case frameType.endOfRam:
        await this.#restorer?.idle();
        // QEMU takes a page that the source never sent for zeroes.
        for (const { block, page, count } of this.#prefetcher?.stop() ?? []) qemu.fill(block, page, count, 0);
        qemu.endOfRam();
        break;
      case frameType.tail:
        await this.#restorer?.idle();
        this.#digest ??= new MemoryDigest([]);
        this.#digest.opaque(frame.payload);
        if (this.#options.holdsDeviceState) this.#hold(frame.payload);
        else qemu.raw(frame.payload);
        break;
      case frameType.root:
        await this.#restorer?.idle();
        await this.#compare(frame.payload, qemu);
        return;
    }
    this.#acknowledgements.add(frame.sequence);
  }

  #useBlocks(payload: Buffer, qemu: QemuStream): void {
    if (this.#restorer !== null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    const { sectionId, blocks } = parseBlocks(payload);
    this.#digest = new MemoryDigest(blocks);
    this.#pagesOfBlock = pagesOfBlocks(blocks);
    this.#restorer = this.#newRestorer(qemu);
    this.#prefetcher = this.#newPrefetcher(qemu, this.#restorer);
    this.#counters.totalPages = totalPagesOf(blocks);
    const ramBlocks: RamBlock[] = blocks.map((block, index) => ({ ...block, index, pageSizeBytes: null, gpa: null }));
    qemu.useBlocks(sectionId, ramBlocks);
  }

  #batch(frame: Frame, qemu: QemuStream): void {
    const restorer = this.#restorer;
    const prefetcher = this.#prefetcher;
    if (restorer === null || prefetcher === null) throw pagesBeforeBlocks();
    const { records, pages } = decodeBatch(frame.payload, this.#pagesOfBlock);
    let at = 0;
    let references = 0;
    for (const [index, run] of records.entries()) {
      const isInPlace = run.kind === recordKind.reference && prefetcher.has(run);
      restorer.overtake(run.block, run.page, run.count);
      prefetcher.overtake(run.block, run.page, run.count);
      if (isInPlace) {
        this.#digest!.setRun(run.block, run.page, 0, run.count, run.digest!);
        this.#counters.pages.restored += run.count;
      } else if (run.kind === recordKind.fill) {
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
        restorer.add(frame.sequence, index, run);
      }
    }
    qemu.flush();
    restorer.start();
    if (references === 0) this.#acknowledgements.add(frame.sequence);
  }

  #newPrefetcher(qemu: QemuStream, restorer: Restorer): Prefetcher {
    return new Prefetcher(this.#options.disks, this.#digester, this.#counters, this.#pagesOfBlock, {
      place: ({ block, page, count }, bytes, digest) => {
        qemu.pages(block, page, count, bytes, 0);
        qemu.flush();
        this.#link!.send(frameType.inPlace, 0, encodeInPlace({ block, page, digest }));
      },
      mayPlace: () => restorer.pending === 0 && qemu.backlogBytes < maxPrefetchBacklogBytes,
    });
  }

  #newRestorer(qemu: QemuStream): Restorer {
    return new Restorer(this.#options.disks, this.#digester, this.#counters, this.#pagesOfBlock, {
      place: (run, from, to, bytes) => {
        this.#digest!.setRun(run.block, run.page, from, to, run.digest!);
        qemu.pages(run.block, run.page + from, to - from, bytes, from * pageBytes);
        qemu.flush();
      },
      askAgain: (sequence, record) => this.#link!.send(frameType.resendRequest, sequence, encodeResendRequest(record)),
      batchDone: (sequence) => this.#acknowledgements.add(sequence),
      mayRead: () => qemu.backlogBytes < maxBacklogBytes,
    });
  }

  #resent({ type, sequence, payload }: Frame): void {
    if (type !== frameType.resend)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type}`);
    if (this.#restorer === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay resent nothing');
    this.#restorer.resent(sequence, decodeResend(payload));
  }

  async #compare(root: Buffer, qemu: QemuStream): Promise<void> {
    const isEqual = (this.#digest ?? new MemoryDigest([])).root().equals(root);
    this.#link!.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    this.#settled = true;
    if (!this.#options.holdsDeviceState) await this.#finish(qemu);
    this.#settle.resolve();
  }

  /** Gives QEMU what was held. After `finished`. */
  async handOver(): Promise<void> {
    const qemu = this.#qemu!;
    for (const payload of this.#held.splice(0)) qemu.raw(payload);
    await this.#finish(qemu);
  }

  async #finish(qemu: QemuStream): Promise<void> {
    await qemu.end();
    this.#counters.bytes.stream = qemu.bytesWritten;
  }

  #hold(payload: Buffer): void {
    this.#heldBytes += payload.length;
    if (this.#heldBytes > maxHeldBytes)
      throw new RelayError('VMMIG_RELAY_STREAM', 'the state of the devices is too large to be held back');
    this.#held.push(Buffer.from(payload));
  }

  #fail(error: RelayError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#link?.send(frameType.failure, 0, Buffer.from(error.message));
    void this.#link?.close();
    this.#qemu?.destroy();
    this.#restorer?.stop();
    this.#prefetcher?.stop();
    this.#settle.reject(error);
  }
}

function pagesBeforeBlocks(): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent pages before their blocks');
}
