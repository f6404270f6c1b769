/**
 * The stream by which a destination QEMU gets a guest that may run before all its memory is there: QEMU loads what has
 * come, drops what is stale, loads the device state, and from then on asks for every page that it misses.
 *
 * Which page has which bytes is not decided here. What is: that no page is given twice once QEMU asks (it would be the
 * end of the stream), that what is asked for overtakes what is not, and that what QEMU need not be given never is: a page
 * that is zero and that nobody asks for is not written, because missing memory is zero once the stream has ended.
 */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { RamBlock } from '../../../stream/handler.js';
import { RelayError } from '../../errors.js';
import { Milestone } from '../../milestone.js';
import { connectToQemu } from '../connectToQemu.js';
import { BlockPages, ownBlocks, type PageRun } from './blockPages.js';
import { beginBytes, endBytes, loadedPing, packageBytes, type RamSection, resumeBytes } from './commands.js';
import type { FaultAnswer, FaultStatistics } from './faults.js';
import type { PostcopyBegin, PostcopyHandlers, PostcopyOptions } from './options.js';
import { Outbox } from './outbox.js';
import { PagesAfter } from './pagesAfter.js';
import { PagesBefore } from './pagesBefore.js';
import { PreemptChannel } from './preemptChannel.js';
import { ReturnPath, unexpected } from './returnPath.js';

/** QEMU loads at its own speed. */
const limitsBefore = { inFlightBytes: 2 ** 19, sendBufferBytes: 2 ** 20 };
/** What an answer to a fault cannot overtake: less than a millisecond's worth of loading. */
const limitsAfter = { inFlightBytes: 64 * 2 ** 10, sendBufferBytes: 64 * 2 ** 10 };
const defaultCollectorBytes = 64 * 2 ** 20;

export class PostcopyStream implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #handlers: PostcopyHandlers;
  readonly #options: PostcopyOptions;
  readonly #outbox: Outbox;
  #preemptChannel: PreemptChannel | null = null;
  #ramSection: RamSection = { id: 0, version: 0 };
  #blocks: readonly BlockPages[] = [];
  #returnPath: ReturnPath | null = null;
  #before: PagesBefore | null = null;
  #after: PagesAfter | null = null;
  readonly #loaded = new Milestone<void>();
  readonly #resumed = new Milestone<void>();
  readonly #shut = new Milestone<boolean>();
  #isEnding = false;
  #isOver = false;

  private constructor(socket: Socket, handlers: PostcopyHandlers, options: PostcopyOptions) {
    this.#socket = socket;
    this.#handlers = handlers;
    this.#options = options;
    this.#outbox = new Outbox(socket, limitsBefore, () => this.#progress());
    const abort = () => this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the stream was aborted'));
    options.signal?.addEventListener('abort', abort);
    socket.on('data', (chunk) => this.#read(chunk));
    socket.on('error', (cause) => this.#fail(unexpected('hung up', cause)));
    socket.on('close', () => {
      options.signal?.removeEventListener('abort', abort);
      this.#fail(unexpected('hung up'));
    });
  }

  /**
   * Connects to the socket on which the destination QEMU waits for its migration. Its capabilities postcopy-ram and
   * return-path are on.
   *
   * @throws RelayError VMMIG_RELAY_QEMU when it does not listen
   */
  static async connect(
    path: string,
    handlers: PostcopyHandlers,
    options: PostcopyOptions = {},
  ): Promise<PostcopyStream> {
    const stream = new PostcopyStream(await connectToQemu(path, options.signal), handlers, options);
    if (options.mayPreempt) stream.#preemptChannel = new PreemptChannel(path);
    return stream;
  }

  /**
   * Takes over from a stream that broke after the switch. QEMU is `postcopy-paused`, and `migrate-recover` has made it
   * listen on `path`. When this resolves the guest goes on, and what QEMU had taken from the stream before counts as
   * placed; everything else counts as missing, zero pages included, until it is told again.
   *
   * QEMU 7.2 crashes if this connection breaks before it has been told to resume, so all that is written at once.
   *
   * @throws RelayError VMMIG_RELAY_QEMU
   */
  static async resume(
    path: string,
    handlers: PostcopyHandlers,
    { ramSection, blocks }: Omit<PostcopyBegin, 'head'>,
    options: PostcopyOptions = {},
  ): Promise<PostcopyStream> {
    const stream = await PostcopyStream.connect(path, handlers, options);
    const own = stream.#use(ramSection, blocks, true);
    const after = stream.#beginAsking();
    after.hold();
    stream.#write(resumeBytes(own));
    await stream.#resumed.reached;
    // The caller has the stream before it is asked for pages.
    setImmediate(() => after.release());
    return stream;
  }

  /** Tells QEMU what memory there is. Pages may follow. */
  begin({ head, ramSection, blocks }: PostcopyBegin): void {
    const own = this.#use(ramSection, blocks, false);
    this.#before = new PagesBefore(this.#outbox, ramSection.id);
    this.#write(beginBytes(head, ramSection, own));
  }

  /**
   * Pages that lie one after the other in `bytes`, from `start` on; copied. Before the switch the latest version is that
   * of the last call. After it, pages that are placed already are left out.
   *
   * @param answer what faults are counted as that are answered by this
   * @returns how many pages are on their way to QEMU by this; with huge host pages these may be others
   */
  place(
    block: number,
    page: number,
    count: number,
    bytes: Buffer,
    start: number,
    answer: FaultAnswer = 'remote',
  ): number {
    const pages = this.#blocks[block]!;
    if (this.#after !== null) return this.#after.place(pages, page, count, bytes, start, answer);
    this.#before!.place(pages, page, count, bytes, start);
    return count;
  }

  /**
   * These pages are zero. They are not written until QEMU asks for one.
   *
   * @returns how many pages are on their way to QEMU by this
   */
  zero(block: number, page: number, count: number): number {
    const pages = this.#blocks[block]!;
    if (this.#after !== null) return this.#after.zero(pages, page, count);
    this.#before!.zero(pages, page, count);
    return 0;
  }

  /** Before the switch: the source has a newer version of these pages. */
  remote(block: number, page: number, count: number): void {
    this.#before!.remote(this.#blocks[block]!, page, count);
  }

  /**
   * The switch: QEMU drops what is stale, loads the device state, and asks from then on for what it misses.
   *
   * @param deviceSections as `splitTail` gives them
   * @returns a promise for the device state having been loaded; it rejects when QEMU refuses it. QEMU may ask for pages
   *   before, because its devices look into the guest's memory
   */
  async switchOver(deviceSections: Buffer): Promise<void> {
    const before = this.#before!;
    before.flush();
    const { commands, heldBack } = before.switchOver(this.#blocks);
    this.#before = null;
    for (const command of commands) this.#write(command);
    this.#write(packageBytes(deviceSections));
    const after = this.#beginAsking();
    if (heldBack !== null) after.place(heldBack.pages, heldBack.page, 1, heldBack.bytes, 0, 'local');
    await this.#loaded.reached;
  }

  /**
   * Ends the stream, for which no page may be missing.
   *
   * @returns a promise for whether QEMU says that all is well; it rejects when QEMU says nothing
   */
  async end(): Promise<boolean> {
    if (this.missing > 0) throw new RelayError('VMMIG_RELAY_STREAM', `${this.missing} pages are still missing`);
    this.#after!.flush();
    this.#isEnding = true;
    this.#preemptChannel?.end();
    this.#write(endBytes(this.#ramSection));
    return await this.#shut.reached;
  }

  /** Pages that are neither placed nor zero. */
  get missing(): number {
    return this.#blocks.reduce((total, pages) => total + pages.missing, 0);
  }

  /** Whether the latest version of a page is in QEMU or on its way there. */
  isPlaced(block: number, page: number): boolean {
    return this.#blocks[block]!.placed.has(page);
  }

  /** Whether QEMU waits for any of these pages. */
  isAwaited(block: number, page: number, count: number): boolean {
    return this.#after !== null && this.#after.faults.within(block, page, count) !== null;
  }

  /** The host pages that QEMU waits for. */
  awaitedRuns(): PageRun[] {
    const awaited = this.#after?.faults.waiting() ?? [];
    return awaited.map(({ block, page }) => ({ block, page, count: this.#blocks[block]!.pagesPerHostPage }));
  }

  /** Whether QEMU has the latest version of a page, or needs none because it is zero. */
  isHere(block: number, page: number): boolean {
    return this.isPlaced(block, page) || this.#blocks[block]!.zero.has(page);
  }

  /** Memory for pages of huge host pages that are not complete. */
  get collectedBytes(): number {
    return this.#after?.collectedBytes ?? 0;
  }

  /** The runs of pages that are missing, block by block. */
  missingRuns(): PageRun[] {
    return this.#blocks.flatMap((pages) => pages.missingRuns());
  }

  /** For each block, the pages that are placed: first page and count of each run, ascending. */
  placedRuns(): Uint32Array[] {
    return this.#blocks.map((pages) => pages.placedRuns());
  }

  /** How long QEMU waited for what it asked; null before the switch. */
  get faults(): FaultStatistics | null {
    return this.#after?.faults.statistics ?? null;
  }

  get bytesWritten(): number {
    return this.#outbox.bytesWritten;
  }

  /** What neither QEMU nor the kernel has taken yet. */
  get backlogBytes(): number {
    return this.#outbox.backlogBytes + (this.#pages?.pendingBytes ?? 0);
  }

  /** Waits until there is room for more, or the stream is over. What is placed beyond that only waits here. */
  async drained(): Promise<void> {
    await this.#outbox.drained();
  }

  /**
   * Calls back when the kernel, and so QEMU, has all that was placed before this call: it survives this process. Pages of
   * a huge host page that is not complete are not among it, nor is, before the switch, one page. Never calls back when the stream is lost before.
   */
  whenTaken(call: () => void): void {
    this.#pages?.flush();
    this.#outbox.whenTaken(call);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over(new RelayError('VMMIG_RELAY_ABORTED', 'the stream was given up'));
    if (!this.#socket.closed) await once(this.#socket, 'close');
  }

  get #pages(): PagesBefore | PagesAfter | null {
    return this.#after ?? this.#before;
  }

  #use(ramSection: RamSection, blocks: readonly RamBlock[], isResumed: boolean): RamBlock[] {
    const own = ownBlocks(blocks);
    this.#ramSection = ramSection;
    this.#blocks = own.map((block) => new BlockPages(block));
    this.#returnPath = new ReturnPath(this.#blocks, isResumed, {
      requested: (pages, page) => {
        if (!this.#isEnding) this.#after?.requested(pages, page);
        // What is zero, and nothing else is left, needs no answer any more; but where there is a way to answer, QEMU waits for it.
        else this.#preemptChannel?.requested(pages, page);
      },
      pong: (value) => {
        if (value === loadedPing) this.#loaded.reach();
      },
      resumed: () => this.#resumed.reach(),
      shut: (ok) => {
        if (!this.#isEnding) throw unexpected('gave up');
        this.#isOver = true;
        this.#shut.reach(ok);
        this.#handlers.shut?.(ok);
      },
    });
    return own;
  }

  #beginAsking(): PagesAfter {
    this.#outbox.limit(limitsAfter);
    this.#after = new PagesAfter(this.#outbox, {
      sectionId: this.#ramSection.id,
      collectorBytes: this.#options.collectorBytes ?? defaultCollectorBytes,
      fault: (run) => {
        if (!this.#isOver) this.#handlers.fault(run);
      },
    });
    return this.#after;
  }

  /** What has its place in the stream: after everything before it. */
  #write(bytes: Buffer): void {
    this.#outbox.flush();
    this.#outbox.urgent({ bytes, runs: [], taken() {} });
  }

  #read(chunk: Buffer): void {
    if (this.#isOver) return;
    try {
      this.#returnPath?.feed(chunk);
    } catch (cause) {
      const failed = 'what QEMU asked for could not be dealt with';
      this.#fail(cause instanceof RelayError ? cause : new RelayError('VMMIG_RELAY_STREAM', failed, cause));
    }
  }

  #progress(): void {
    this.#pages?.progress();
    this.#handlers.progress?.();
  }

  #fail(error: RelayError): void {
    if (this.#isOver) return;
    this.#over(error);
    this.#handlers.lost(error);
  }

  #over(error: RelayError): void {
    this.#isOver = true;
    for (const milestone of [this.#loaded, this.#resumed, this.#shut]) milestone.miss(error);
    this.#socket.destroy();
    this.#preemptChannel?.[Symbol.dispose]();
  }
}
