/**
 * The destination relay of a switch. Until the permission to run comes it puts the guest's memory together as it
 * arrives; then it has QEMU load the device state, and from there on answers what the guest asks for: from what is here
 * already, from this host's disk, and only then from the source. Meanwhile the rest comes in.
 */
import type { DiskReader } from '../../disk/diskReader.js';
import { HeldPages } from '../../pager/index.js';
import type { RamBlock } from '../../stream/handler.js';
import { digestBatch } from '../batchDigest.js';
import { newCounters, type RelayCounters } from '../counters.js';
import { MemoryDigest, pageBytes, pagesOfBlocks, RunDigester, totalPagesOf } from '../digest.js';
import { RelayError } from '../errors.js';
import { type Batch, type BatchRecord, decodeBatch, recordKind, unpackPages } from '../link/batch.js';
import type { LinkCredentials } from '../link/connection.js';
import { DurableLink } from '../link/durableLink.js';
import { encodeFault } from '../link/faults.js';
import { type Frame, frameType } from '../link/frames.js';
import { type Listener, type ListenOptions, listen } from '../link/handshake.js';
import { decodeHints } from '../link/hints.js';
import { encodePlaced } from '../link/placed.js';
import { decodeResend, encodeResendRequest } from '../link/resend.js';
import { decodeRemoteSet } from '../store/remoteSet.js';
import { Acknowledgements } from './acknowledgements.js';
import { parseCapture, parseMemory } from './blocksFrame.js';
import { FrameQueue } from './frameQueue.js';
import { HostPageReceipts } from './hostPageReceipts.js';
import type { PageRun } from './postcopy/blockPages.js';
import type { FaultStatistics } from './postcopy/faults.js';
import type { PostcopyBegin, PostcopyHandlers } from './postcopy/options.js';
import { PostcopyStream } from './postcopy/postcopyStream.js';
import { Prefetcher } from './prefetcher.js';
import { Restorer } from './restorer.js';

export interface SwitchDestinationOptions {
  readonly credentials: LinkCredentials;
  readonly listen: ListenOptions;
  /** Where the destination QEMU listens for its migration. */
  readonly qemuSocketPath: string;
  /** Resolves when it does, with the host page size in bytes of those RAM blocks that do not lie in small pages. */
  readonly qemuListens: Promise<ReadonlyMap<string, number>>;
  /** Disks by the index that references name. The caller closes them. */
  readonly disks: readonly DiskReader[];
  /** Of memory that is sent ahead and may not be what the guest has in the end. */
  readonly heldLimitBytes: number;
  /** So long the source may be out of reach after the switch. */
  readonly reconnectTimeoutMs: number;
  /**
   * Takes the place of a relay that ended after the switch. QEMU, paused, listens for a stream that goes on where the one
   * before broke; the source tells again what is not there.
   */
  readonly takesOver?: boolean;
}

export interface SwitchDestinationHandlers {
  /** The source permits to run the guest, which is being loaded. */
  permitted(): void;
  /** QEMU has the device state: the guest can run. Having taken over: QEMU goes on. */
  loaded(): void;
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
}

export interface SwitchDestinationState {
  readonly counters: RelayCounters;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  readonly isConnected: boolean;
  /** From another relay. */
  readonly hasTakenOver: boolean;
  /** It has, and has not met the source yet. */
  readonly awaitsSource: boolean;
  readonly reconnects: number;
  readonly pendingRestores: number;
  /** Pages that the guest may still have to wait for. */
  readonly missingPages: number;
  readonly faults: FaultStatistics | null;
}

const maxDeviceBytes = 256 * 1024 * 1024;
const maxRemoteBytes = 64 * 1024 * 1024;
const maxPieceBytes = 1024 * 1024;
/** Read ahead of QEMU, and not yet taken by it: little once the guest runs, because its faults wait behind. */
const reading = { before: 2 * 1024 * 1024, after: 512 * 1024 };
const maxBacklogBytes = { before: 512 * 1024, after: 128 * 1024 };
/** Of huge host pages that are not complete, while more of the kind is read from the disk. */
const maxCollectedBytes = 64 * 1024 * 1024;
/** A batch of references is shorter. */
const waitingBytes = 64 * 1024;
/** Pages may come to much more than the batch that brings them: with so much before QEMU, every frame waits. */
const maxWaitingBytes = 8 * 1024 * 1024;

export class SwitchDestination implements AsyncDisposable {
  readonly port: number;
  /** Resolves when QEMU has all of the guest's memory and it was found equal; rejects with a `RelayError`. */
  readonly finished: Promise<void>;
  readonly #options: SwitchDestinationOptions;
  readonly #handlers: SwitchDestinationHandlers;
  readonly #counters = newCounters();
  readonly #digester: RunDigester;
  readonly #listener: Listener;
  readonly #acknowledgements = new Acknowledgements((payload) => this.#link?.send(frameType.acknowledge, 0, payload));
  readonly #givenBack = new Acknowledgements((payload) => this.#link?.send(frameType.givenBack, 0, payload));
  #receipts: HostPageReceipts | null = null;
  #link: DurableLink | null = null;
  #stream: PostcopyStream | null = null;
  #digest: MemoryDigest | null = null;
  #restorer: Restorer | null = null;
  #prefetcher: Prefetcher | null = null;
  readonly #held: HeldPages;
  #pagesOfBlock: number[] = [];
  readonly #queue = new FrameQueue({
    handle: (frame) => this.#work(frame),
    failed: (error) => this.#fail(error),
    hasEnded: () => this.#settled,
  });
  /** A frame's pages wait for QEMU: restoring, which comes after it, does not add to what it waits for. */
  #isWaiting = false;
  readonly #remote: Buffer[] = [];
  readonly #device: Buffer[] = [];
  #remoteBytes = 0;
  #deviceBytes = 0;
  #hasSwitched = false;
  /** The source may still bring so many pages unordered. */
  #askedPages = 0;
  /** QEMU is loading the device state: the guest stands still until it has. */
  #isLoading = false;
  #settle!: { resolve: () => void; reject: (error: RelayError) => void };
  #settled = false;

  private constructor(options: SwitchDestinationOptions, handlers: SwitchDestinationHandlers, listener: Listener) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    this.#held = new HeldPages(this.#digester, options.heldLimitBytes);
    this.#listener = listener;
    this.port = listener.port;
    this.finished = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.finished.catch(() => {});
  }

  /** Listens for the source relay. */
  static async start(
    options: SwitchDestinationOptions,
    handlers: SwitchDestinationHandlers,
  ): Promise<SwitchDestination> {
    const patience = options.takesOver === true ? { timeoutMs: options.reconnectTimeoutMs } : {};
    const listener = await listen(options.credentials, { ...options.listen, ...patience, staysOpen: true });
    const relay = new SwitchDestination(options, handlers, listener);
    relay.#join().catch((error: RelayError) => relay.#fail(error));
    return relay;
  }

  get state(): SwitchDestinationState {
    return {
      counters: this.#counters,
      bytesOnWire: this.#link?.bytesOnWire ?? 0,
      rttMs: this.#link?.rttMs ?? 0,
      isConnected: this.#link?.isConnected ?? false,
      hasTakenOver: this.#options.takesOver === true,
      awaitsSource: this.#options.takesOver === true && this.#link === null,
      reconnects: this.#link?.reconnects ?? 0,
      pendingRestores: this.#restorer?.pending ?? 0,
      missingPages: this.#stream?.missing ?? 0,
      faults: this.#stream?.faults ?? null,
    };
  }

  /** The guest runs here: the source can let go of it. */
  tellRunning(): void {
    this.#isLoading = false;
    this.#readOn();
    this.#link?.sendUrgent(frameType.running, Buffer.alloc(0));
  }

  /** The guest does not run here, and will not. */
  tellRefused(message: string): void {
    this.#link?.sendUrgent(frameType.refused, Buffer.from(message));
    if (this.#settled) this.#hangUp(message);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#settled) this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
    await this.#listener[Symbol.asyncDispose]();
    await this.#link?.close();
    await this.#stream?.[Symbol.asyncDispose]();
  }

  async #join(): Promise<void> {
    const peers = await this.#listener.joined;
    const handlers = this.#handlers;
    this.#link = new DurableLink(peers, {
      ordered: (frame) => this.#queue.add(frame),
      immediate: (frame) => this.#immediate(frame),
      lost: (cause) => this.#fail(cause),
      interrupted: (cause) => handlers.interrupted?.(cause),
      resumed: (gapMs) => handlers.resumed?.(gapMs),
    });
    if (this.#options.takesOver === true) this.#endure();
  }

  #endure(): void {
    const { reconnectTimeoutMs } = this.#options;
    this.#link!.endure({ reconnectTimeoutMs, by: { accept: this.#listener } });
  }

  /** No faster than QEMU takes the pages. */
  async #work(frame: Frame): Promise<void> {
    await this.#handle(frame);
    // Only what brings bytes has to wait for QEMU; least of all the permission to run.
    const backlogBytes = this.#stream?.backlogBytes ?? 0;
    if (frame.payload.length < waitingBytes && backlogBytes < maxWaitingBytes) return;
    this.#isWaiting = true;
    await this.#stream?.drained();
    this.#isWaiting = false;
    this.#readOn();
  }

  /** Whatever kept the disks from being read may be over. */
  #readOn(): void {
    this.#restorer?.start();
    this.#prefetcher?.start();
  }

  async #handle({ type, sequence, payload }: Frame): Promise<void> {
    if (type === frameType.blocks) return await this.#begin(payload);
    if (type === frameType.memory) return this.#announce(payload);
    if (type === frameType.ahead) return this.#hold(sequence, payload);
    const stream = this.#stream;
    if (stream === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent pages before their blocks');
    switch (type) {
      case frameType.hints:
        this.#prefetcher!.add(decodeHints(payload, this.#pagesOfBlock));
        break;
      case frameType.batch:
        this.#batch(sequence, decodeBatch(payload, this.#pagesOfBlock), stream);
        break;
      case frameType.remote:
        this.#requireBeforeGo(type);
        this.#remoteBytes += payload.length;
        if (this.#remoteBytes > maxRemoteBytes) throw tooLong('list of pages to come');
        this.#remote.push(payload);
        break;
      case frameType.device:
        this.#requireBeforeGo(type);
        this.#addDevice(payload);
        break;
      case frameType.go:
        this.#switchOver(stream);
        break;
      case frameType.root:
        await this.#finish(payload, stream);
        break;
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type}`);
    }
  }

  #requireBeforeGo(type: number): void {
    if (this.#hasSwitched)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type} after it let go`);
  }

  /** Before QEMU's stream, and maybe before QEMU: pages of a guest that still runs follow. */
  #announce(payload: Buffer): void {
    if (this.#pagesOfBlock.length > 0)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    this.#pagesOfBlock = pagesOfBlocks(parseMemory(payload).blocks);
  }

  /** What is the guest's in the end is told by digests, after it has stopped. */
  #hold(sequence: number, payload: Buffer): void {
    const { records, pages } = decodeBatch(payload, this.#pagesOfBlock);
    let at = 0;
    for (const { kind, block, page, count } of records) {
      if (kind !== recordKind.bytes || this.#hasSwitched)
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent ahead what cannot be held');
      this.#held.hold(block, page, count, pages, at);
      at += count * pageBytes;
    }
    this.#acknowledgements.add(sequence);
  }

  async #begin(payload: Buffer): Promise<void> {
    if (this.#stream !== null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay named its blocks twice');
    const { head, section, blocks } = parseCapture(payload);
    const pagesOfBlock = pagesOfBlocks(blocks);
    if (this.#pagesOfBlock.length > 0 && String(pagesOfBlock) !== String(this.#pagesOfBlock))
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay sent ahead pages of other blocks');
    const pageSizes = await this.#options.qemuListens;
    const ramBlocks = blocks.map((block, index) => ({
      ...block,
      index,
      pageSizeBytes: pageSizes.get(block.name) ?? null,
      gpa: null,
    }));
    const begin = { head, ramSection: section, blocks: ramBlocks };
    const stream = await this.#openStream(begin);
    if (this.#settled) return await stream[Symbol.asyncDispose]();
    this.#stream = stream;
    this.#digest = new MemoryDigest(blocks);
    this.#pagesOfBlock = pagesOfBlock;
    this.#counters.totalPages = totalPagesOf(blocks);
    this.#restorer = this.#newRestorer(stream);
    this.#prefetcher = this.#newPrefetcher(stream, this.#restorer);
    this.#receipts = this.#newReceipts(stream, ramBlocks);
    if (this.#options.takesOver === true) this.#takeOver(stream);
    else stream.begin(begin);
  }

  /** The source sends huge host pages as a whole when it knows of them. */
  #newReceipts(stream: PostcopyStream, blocks: readonly RamBlock[]): HostPageReceipts {
    const sizes = blocks.map(({ pageSizeBytes }) => (pageSizeBytes ?? pageBytes) / pageBytes);
    if (sizes.some((size) => size > 1)) {
      const payload = Buffer.alloc(4 * sizes.length);
      for (const [at, size] of sizes.entries()) payload.writeUInt32BE(size, 4 * at);
      this.#link!.sendUrgent(frameType.hostPages, payload);
    }
    const sink = {
      acknowledge: (sequence: number) => stream.whenTaken(() => this.#acknowledgements.add(sequence)),
      giveBack: (sequence: number) => this.#givenBack.add(sequence),
    };
    const isHere = (block: number, page: number) => stream.isHere(block, page);
    return new HostPageReceipts(sizes, isHere, sink, this.#options.takesOver === true);
  }

  async #openStream(begin: PostcopyBegin): Promise<PostcopyStream> {
    const { qemuSocketPath, takesOver } = this.#options;
    const handlers: PostcopyHandlers = {
      fault: (run) => this.#fault(run),
      lost: (error) => this.#fail(error),
      progress: () => this.#readOn(),
    };
    // What is sent is not forgotten: the source would not send it again.
    const options = { collectorBytes: Infinity };
    if (takesOver === true) return await PostcopyStream.resume(qemuSocketPath, handlers, begin, options);
    return await PostcopyStream.connect(qemuSocketPath, handlers, options);
  }

  /** The guest goes on: the source is told what QEMU has, and tells the rest. */
  #takeOver(stream: PostcopyStream): void {
    this.#restorer!.maxReadingBytes = reading.after;
    this.#hasSwitched = true;
    for (const [at, payload] of encodePlaced(stream.placedRuns()).entries())
      this.#link!.send(frameType.placed, at, payload);
    this.#handlers.loaded();
  }

  /** Places what a batch brings, and tells the source once QEMU has all of it. */
  #batch(sequence: number, batch: Batch, stream: PostcopyStream): void {
    digestBatch(this.#digest!, this.#digester, batch);
    const restorer = this.#restorer!;
    const prefetcher = this.#prefetcher!;
    const receipts = this.#receipts!;
    receipts.expect(sequence, batch.records);
    let at = 0;
    let references = 0;
    for (const [index, run] of batch.records.entries()) {
      const isInPlace = run.kind === recordKind.reference && prefetcher.has(run);
      restorer.overtake(run.block, run.page, run.count);
      prefetcher.overtake(run.block, run.page, run.count);
      if (run.kind === recordKind.fill) this.#fill(run, stream);
      else if (run.kind === recordKind.bytes) {
        stream.place(run.block, run.page, run.count, batch.pages, at);
        this.#counters.pages.sent += run.count;
        at += run.count * pageBytes;
        this.#hurryRest(run);
      } else if (isInPlace) this.#counters.pages.restored += run.count;
      else {
        references++;
        if (!this.#hasSwitched) stream.remote(run.block, run.page, run.count);
        restorer.add(sequence, index, run);
        // Also what was asked for in vain: it was on its way already.
        if (stream.isAwaited(run.block, run.page, run.count)) restorer.hurry(run.block, run.page, run.count);
      }
    }
    if (references === 0) receipts.done(sequence);
    else receipts.look();
    restorer.start();
  }

  /** Of a huge host page that was begun, what this host's disk has: what is not complete takes memory here. */
  #hurryRest({ block, page, count }: PageRun): void {
    if (!this.#hasSwitched || !this.#receipts!.isHuge(block)) return;
    for (let at = page; at < page + count; ) {
      const hostPage = this.#receipts!.hostPage(block, at);
      this.#restorer!.hurry(block, hostPage.page, hostPage.count);
      at = hostPage.page + hostPage.count;
    }
  }

  #fill({ block, page, count, fill }: BatchRecord, stream: PostcopyStream): void {
    this.#counters.pages.zero += count;
    if (fill === 0) {
      stream.zero(block, page, count);
      return;
    }
    const bytes = Buffer.alloc(pageBytes, fill);
    for (let at = page; at < page + count; at++) stream.place(block, at, 1, bytes, 0);
  }

  #addDevice(payload: Buffer): void {
    const lengthBytes = payload.length < 5 ? 0 : payload.readUInt32BE(0);
    this.#deviceBytes += lengthBytes;
    if (lengthBytes === 0 || lengthBytes > maxPieceBytes || this.#deviceBytes > maxDeviceBytes)
      throw tooLong('device state');
    this.#device.push(unpackPages(payload[4]!, payload.subarray(5), lengthBytes));
  }

  /** The source lets go of the guest: QEMU loads it, and from now on asks for the memory that it lacks. */
  #switchOver(stream: PostcopyStream): void {
    if (this.#hasSwitched) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay switched over twice');
    for (const [block, runs] of decodeRemoteSet(Buffer.concat(this.#remote), this.#pagesOfBlock).entries())
      for (let at = 0; at < runs.length; at += 2) {
        this.#restorer!.overtake(block, runs[at]!, runs[at + 1]!);
        this.#prefetcher!.overtake(block, runs[at]!, runs[at + 1]!);
        stream.remote(block, runs[at]!, runs[at + 1]!);
      }
    for (const { block, page, count } of this.#prefetcher!.stop()) stream.zero(block, page, count);
    this.#restorer!.maxReadingBytes = reading.after;
    this.#hasSwitched = true;
    this.#endure();
    this.#isLoading = true;
    this.#handlers.permitted();
    stream.switchOver(Buffer.concat(this.#device)).then(
      () => this.#handlers.loaded(),
      (error) => this.#fail(error),
    );
    this.#device.length = 0;
    this.#receipts!.switched();
  }

  /** The guest waits for these pages. */
  #fault(run: PageRun): void {
    const here = this.#restorer!.hurry(run.block, run.page, run.count);
    if (here === run.count) return;
    this.#askedPages += run.count;
    this.#link!.sendUrgent(frameType.fault, encodeFault(run));
  }

  #immediate({ type, sequence, payload }: Frame): void {
    if (this.#stream === null || this.#restorer === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay answered before it was asked');
    if (type === frameType.answer) return this.#answer(sequence, payload, this.#stream);
    if (type !== frameType.resend)
      throw new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a frame of type ${type}`);
    this.#restorer.resent(sequence, decodeResend(payload));
  }

  /** Does not wait for QEMU, and so brings no more bytes than were asked for. */
  #answer(sequence: number, payload: Buffer, stream: PostcopyStream): void {
    const batch = decodeBatch(payload, this.#pagesOfBlock);
    this.#askedPages -= batch.pages.length / pageBytes;
    if (!this.#hasSwitched || this.#askedPages < 0)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay answered what nobody asked');
    this.#batch(sequence, batch, stream);
  }

  /** The source has nothing left. */
  async #finish(root: Buffer, stream: PostcopyStream): Promise<void> {
    if (!this.#hasSwitched)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the source relay compared before the permission to run');
    const isEqual = this.#digest!.root().equals(root);
    this.#held.clear();
    const isWell = await stream.end();
    this.#counters.bytes.stream = stream.bytesWritten;
    this.#link!.send(frameType.rootResult, 0, Buffer.of(isEqual ? 1 : 0));
    if (!isEqual) throw new RelayError('VMMIG_RELAY_VERIFY', "the memory put together here is not the source's");
    if (!isWell)
      throw new RelayError('VMMIG_RELAY_QEMU', 'the destination QEMU says that it could not take all memory');
    this.#settled = true;
    this.#settle.resolve();
  }

  #hangUp(message: string): void {
    this.#link?.send(frameType.failure, 0, Buffer.from(message));
    void this.#link?.close();
  }

  #newPrefetcher(stream: PostcopyStream, restorer: Restorer): Prefetcher {
    return new Prefetcher(
      this.#options.disks,
      this.#digester,
      this.#counters,
      this.#pagesOfBlock,
      {
        place: (run, bytes) => void stream.place(run.block, run.page, run.count, bytes, 0, 'local'),
        mayPlace: () => !this.#isWaiting && restorer.pending === 0 && stream.backlogBytes < maxBacklogBytes.before,
      },
      reading.before,
    );
  }

  #newRestorer(stream: PostcopyStream): Restorer {
    return new Restorer(
      this.#options.disks,
      this.#digester,
      this.#counters,
      this.#pagesOfBlock,
      {
        place: (run, from, to, bytes) =>
          void stream.place(run.block, run.page + from, to - from, bytes, from * pageBytes, 'local'),
        askAgain: (sequence, record) =>
          this.#link!.send(frameType.resendRequest, sequence, encodeResendRequest(record)),
        batchDone: (sequence) => this.#receipts!.done(sequence),
        mayRead: () =>
          !this.#isLoading &&
          !this.#isWaiting &&
          stream.collectedBytes < maxCollectedBytes &&
          stream.backlogBytes < (this.#hasSwitched ? maxBacklogBytes.after : maxBacklogBytes.before),
      },
      reading.before,
      this.#held,
    );
  }

  #fail(error: RelayError): void {
    if (this.#settled) return;
    this.#settled = true;
    // Permitted to run the guest, this host has to say what became of it, when it is known: `tellRefused`.
    if (!this.#isLoading) this.#hangUp(error.message);
    void this.#stream?.[Symbol.asyncDispose]();
    this.#restorer?.stop();
    this.#prefetcher?.stop();
    this.#held.clear();
    this.#settle.reject(error);
  }
}

function tooLong(what: string): RelayError {
  return new RelayError('VMMIG_LINK_PROTOCOL', `the source relay sent a malformed ${what}`);
}
