/**
 * The relay beside the source QEMU: takes its migration stream, sends what the destination cannot get
 * from its own disk, and keeps every teleported page until the destination has it. When the link
 * is slower than QEMU, QEMU waits: nothing is buffered beyond the window.
 */
import { BufferPool } from '../bufferPool.js';
import { newCounters, type RelayCounters } from '../counters.js';
import { pageBytes, RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { maxBatchPages, maxReferencePages } from '../link/batch.js';
import type { Endpoint, LinkCredentials } from '../link/connection.js';
import { type DurableLink, durableConnections } from '../link/durableLink.js';
import { type Frame, frameHeaderBytes, frameType } from '../link/frames.js';
import { dial } from '../link/handshake.js';
import { decodeInPlace, type RunInPlace } from '../link/hints.js';
import { peerText } from '../link/peerText.js';
import { decodeResendRequest } from '../link/resend.js';
import { decodeSequences } from '../link/sequences.js';
import { TokenBucket } from '../link/tokenBucket.js';
import { Milestone } from '../milestone.js';
import { teleportLink } from '../teleportLink.js';
import { AheadSender } from './aheadSender.js';
import { IncomingStream, type IncomingStreamHandlers } from './incomingStream.js';
import { encodeMemory } from './memoryFrame.js';
import { pagesAhead } from './pagesAhead.js';
import { Resends } from './resends.js';
import { defaultReadBytes } from './reusedBuffer.js';
import { type ReadableMemory, SentAhead } from './sentAhead.js';
import { StoppedGuest, stoppedPatienceMs } from './stoppedGuest.js';
import { type PageFate, StreamToFrames } from './streamToFrames.js';
import type { CacheMap } from './teleportMap.js';
import { maxRetainedBytes, type ReferredRun, SendWindow } from './window.js';

const nothingRetained: ReadonlyMap<number, ReferredRun> = new Map();
const runBufferBytes = maxReferencePages * pageBytes;
/** When QEMU may stop the guest, a batch is sent when it is so long on the link. */
const batchMs = 8;
const minBatchPages = 8;

export interface SourceRelayOptions {
  /** Where QEMU's `migrate unix:…` connects to. Made with mode 0600, removed at the end. */
  readonly socketPath: string;
  readonly credentials: LinkCredentials;
  readonly connections: number;
  readonly bandwidthBps: number | null;
  readonly elide: boolean;
  readonly compress: boolean;
  /** So long the destination relay may be out of reach while the guest runs; 0: a lost connection is the end. */
  readonly reconnectTimeoutMs: number;
  /** So long once the guest has stopped. */
  readonly stoppedPatienceMs?: number;
  readonly silenceLimitMs?: number;
  /** QEMU has a return path, and waits there for its destination's answers. */
  readonly answersQemu?: boolean;
}

/** What the destination tells of the guest, once it has all of it. */
export interface SourceRelayHandlers {
  running(): void;
  /** The guest does not run there, and will not. */
  refused(): void;
}

/** What the policy needs in order to decide when to switch over. */
export interface SourceRelayState {
  readonly counters: RelayCounters;
  /** Taken from QEMU and not yet acknowledged. */
  readonly backlogBytes: number;
  /** What was taken from QEMU takes on the link, on its way or there; null where that is not counted: of a switch. */
  readonly framedBytes: number | null;
  readonly bytesOnWire: number;
  readonly rttMs: number;
  readonly connections: number;
  readonly reconnects: number;
  /** Whether the relays have met, and the link between them is not interrupted. */
  readonly isConnected: boolean;
  /** QEMU has sent the guest's RAM whole: the guest is stopped. */
  readonly ramEnded: boolean;
  readonly opaqueSections: readonly string[];
}

export class SourceRelay implements AsyncDisposable {
  readonly #end = new Milestone<void>();
  /** Resolves once both sides have compared their memory and found it equal; rejects with a `RelayError`. */
  readonly finished: Promise<void> = this.#end.reached;
  readonly #parting = new Milestone<void>();
  /** Resolves when nothing more will be heard of the destination relay. */
  readonly parted: Promise<void> = this.#parting.reached;
  readonly #handlers: SourceRelayHandlers;
  readonly #counters = newCounters();
  readonly #window = new SendWindow();
  readonly #pool = new BufferPool(runBufferBytes, maxRetainedBytes / runBufferBytes);
  readonly #frames: StreamToFrames;
  readonly #stream: IncomingStream;
  readonly #options: SourceRelayOptions;
  readonly #resends = new Resends();
  readonly #stoppedGuest: StoppedGuest;
  readonly #pagesAhead = pagesAhead(defaultReadBytes);
  readonly #digester: RunDigester;
  /** Until QEMU's stream has pages. */
  #ahead: AheadSender | null = null;
  readonly #ended = new AbortController();
  #link: DurableLink | null = null;
  #ramEnded = false;
  /** Since when the link is interrupted, by this host's clock; null while it is not. */
  interruptedAtMs: number | null = null;
  #streamEnded = false;

  private constructor(options: SourceRelayOptions, handlers: SourceRelayHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    const patienceMs = options.stoppedPatienceMs ?? stoppedPatienceMs;
    this.#stoppedGuest = new StoppedGuest(patienceMs, () => {
      const message = `the link was cut when the guest had stopped, and not whole again within ${patienceMs} ms`;
      this.#fail(new RelayError('VMMIG_LINK_LOST', message));
    });
    this.#frames = new StreamToFrames(
      {
        ordered: (type, payload, retained) => this.#sendOrdered(type, payload, retained),
        ramEnded: () => {
          this.#ramEnded = true;
          this.guestStopped();
        },
      },
      this.#counters,
      options,
      this.#digester,
      this.#pool,
    );
    const streamed: IncomingStreamHandlers = {
      decoded: () => {
        const { totalPages, pages } = this.#counters;
        if (pages.seen > 0) this.#ahead?.[Symbol.dispose]();
        const leftPages = Math.max(0, totalPages - pages.seen);
        this.#window.isFirstPass = leftPages > 0;
        const runsAhead = leftPages > this.#pagesAhead;
        this.#window.runsAhead = runsAhead;
        this.#frames.batchPages = runsAhead ? maxBatchPages : this.#shortBatchPages();
        return this.#window.isOpen;
      },
      ended: () => this.#endOfStream(),
      failed: (error) => this.#fail(error),
    };
    this.#stream = new IncomingStream(this.#frames, this.#counters, streamed, options);
  }

  /** Listens for QEMU, whose stream waits for `begin`. */
  static async listen(options: SourceRelayOptions, handlers: SourceRelayHandlers): Promise<SourceRelay> {
    const relay = new SourceRelay(options, handlers);
    await relay.#stream.listen(options.socketPath);
    return relay;
  }

  /** Meets the destination relay. */
  async connect(endpoint: Endpoint): Promise<void> {
    const { credentials, connections, bandwidthBps, ...options } = this.#options;
    const peers = await dial(endpoint, credentials, { connections: durableConnections(connections) });
    const bucket = bandwidthBps === null ? null : new TokenBucket(bandwidthBps);
    this.#link = teleportLink(
      peers,
      {
        immediate: (frame) => this.#answer(frame),
        received: () => this.#received(),
        interrupted: () => this.#interrupted(),
        resumed: () => this.#resumed(),
        lost: (cause) => {
          this.#fail(cause);
          this.#parting.reach();
        },
      },
      { ...options, bucket, by: { dial: endpoint, credentials } },
    );
    if (this.#end.isDecided) return await this.#link.close();
    this.#link.ping();
  }

  /**
   * Sends memory for as long as QEMU's stream has no pages: once the relay is connected, and has its cache map if there is
   * to be one.
   *
   * @throws PagerError when it cannot be read; what has been sent is not wrong then
   */
  async sendAhead(memory: ReadableMemory): Promise<void> {
    if (this.#link === null || this.#end.isDecided) return;
    const ahead = new SentAhead(memory);
    await ahead.survey(this.#ended.signal);
    ahead.know(this.#frames.cacheMap);
    if (this.#end.isDecided || this.#counters.pages.seen > 0 || !this.#frames.useAhead(ahead)) return;
    this.#sendOrdered(frameType.memory, encodeMemory(memory.blocks));
    const sink = {
      isOpen: () => this.#window.isOpen && !this.#end.isDecided,
      send: (batch: Buffer) => this.#sendOrdered(frameType.ahead, batch),
      paused: () => {},
    };
    this.#ahead = new AheadSender(ahead, sink, { compress: this.#options.compress, turnMs: 0 });
    this.#ahead.pump();
  }

  /** Lets QEMU's stream in, once the relay is connected and has its cache map. */
  begin(): void {
    this.#stream.begin();
  }

  get state(): SourceRelayState {
    return {
      counters: this.#counters,
      backlogBytes: this.#window.frameBytes + this.#frames.pendingBytes,
      framedBytes: this.#window.allFramesBytes + this.#frames.pendingBytes,
      bytesOnWire: this.#link?.bytesOnWire ?? 0,
      rttMs: this.#link?.rttMs ?? 0,
      connections: this.#link?.connections ?? 0,
      reconnects: this.#link?.reconnects ?? 0,
      isConnected: this.#link?.isConnected ?? false,
      ramEnded: this.#ramEnded,
      opaqueSections: this.#frames.opaqueSections,
    };
  }

  /** What becomes of a page in QEMU's first pass. @param block - its name */
  fateOf(block: string, page: number): PageFate {
    return this.#frames.fateOf(block, page);
  }

  /** Replaces the cache map: pages that QEMU sends from now on are looked up in the new one. */
  setCacheMap(map: CacheMap): void {
    this.#frames.setCacheMap(map);
  }

  /** It waits for the destination: an interrupted link is not waited for as long as before. */
  guestStopped(): void {
    this.#stoppedGuest.stopped();
  }

  /** The guest is this host's no more: the destination need not remember where it came from. */
  tellReleased(): void {
    this.#link?.sendUrgent(frameType.released, Buffer.alloc(0));
    void this.#part();
  }

  /** Gives up: the link and QEMU's connection are closed, which makes QEMU's migration fail and its guest go on. */
  abort(): void {
    this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#end.isDecided) this.abort();
    await this.#stream[Symbol.asyncDispose]();
    await this.#part();
  }

  /** What the link takes in a moment: what is collected for a batch does not move. */
  #shortBatchPages(): number {
    const pages = Math.floor((this.#window.bytesPerMs * batchMs) / pageBytes);
    return Math.max(minBatchPages, Math.min(maxBatchPages, pages));
  }

  #sendOrdered(type: number, payload: Buffer, retained?: ReadonlyMap<number, ReferredRun>): void {
    const sequence = this.#link!.sendOrdered(type, payload);
    this.#window.add(sequence, payload.length + frameHeaderBytes, retained ?? nothingRetained);
  }

  #interrupted(): void {
    this.interruptedAtMs = Date.now();
    if (!this.#end.isDecided) this.#stoppedGuest.interrupted();
  }

  #resumed(): void {
    this.interruptedAtMs = null;
    this.#stoppedGuest.resumed();
  }

  #endOfStream(): void {
    this.#streamEnded = true;
    this.#frames.flush();
    this.#link!.sendOrdered(frameType.root, this.#frames.root());
  }

  #answer(frame: Frame): void {
    switch (frame.type) {
      case frameType.acknowledge:
        this.#acknowledged(frame.payload);
        this.#goOn();
        break;
      case frameType.resendRequest:
        this.#resend(frame);
        break;
      case frameType.inPlace:
        this.#inPlace(decodeInPlace(frame.payload));
        break;
      case frameType.rootResult:
        this.#conclude(frame.payload[0] === 1);
        break;
      case frameType.running:
        if (!this.#end.isDecided)
          throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination runs what it has not got whole');
        this.#handlers.running();
        break;
      case frameType.refused:
        this.#refused(peerText(frame.payload));
        break;
      case frameType.failure:
        this.#fail(new RelayError('VMMIG_RELAY_QEMU', `the destination relay gave up: ${peerText(frame.payload)}`));
        break;
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the destination relay sent a frame of type ${frame.type}`);
    }
  }

  #refused(message: string): void {
    if (!this.#end.isDecided)
      return this.#fail(new RelayError('VMMIG_RELAY_QEMU', `the destination gave up: ${message}`));
    this.#handlers.refused();
    void this.#part();
  }

  /** The destination has read a run ahead. */
  #inPlace(found: RunInPlace): void {
    this.#frames.noteInPlace(found);
    const run = this.#window.release(found);
    if (run === null) return;
    this.#pool.release(Buffer.from(run.bytes.buffer));
    this.#goOn();
  }

  /** There may be room. */
  #goOn(): void {
    if (!this.#window.isOpen) return;
    this.#stream.resume();
    this.#ahead?.pump();
  }

  #received(): void {
    const { unreceivedBytes, rttMs, recentRttMs } = this.#link!;
    if (this.#window.received(unreceivedBytes, { smallest: rttMs, recent: recentRttMs })) this.#link!.forgetRtt();
    this.#resends.send(this.#link!);
  }

  #acknowledged(sequences: Buffer): void {
    for (const sequence of decodeSequences(sequences)) {
      const runs = this.#window.acknowledge(sequence);
      if (runs === null) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination acknowledged what was not sent');
      for (const { bytes } of runs) this.#pool.release(Buffer.from(bytes.buffer));
    }
  }

  /** The destination's disk does not hold what the cache map says: the kept bytes go out. */
  #resend(frame: Frame): void {
    const run = this.#window.takeForResend(frame.sequence, decodeResendRequest(frame.payload));
    if (run === null)
      throw new RelayError(
        'VMMIG_LINK_PROTOCOL',
        'the destination asked for what was not sent as a reference, or twice',
      );
    if (run.isHeld !== true) {
      this.#counters.pages.mismatched += run.count;
      this.#counters.pages.sent += run.count;
    }
    this.#resends.add({ sequence: frame.sequence, request: Buffer.from(frame.payload), run }, this.#link!);
  }

  #conclude(isEqual: boolean): void {
    if (!this.#streamEnded) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination compared before the end');
    if (!isEqual)
      return this.#fail(new RelayError('VMMIG_RELAY_VERIFY', "the destination's memory is not the source's"));
    this.#stream.accept();
    this.#end.reach();
    this.#stoppedGuest[Symbol.dispose]();
  }

  /** Both sides have said all they had to say: whoever ends this relay later need not wait for the peer. */
  async #part(): Promise<void> {
    this.#parting.reach();
    await this.#link?.close();
  }

  #fail(error: RelayError): void {
    if (!this.#end.miss(error)) return;
    this.#ended.abort();
    this.#frames.close();
    this.#stoppedGuest[Symbol.dispose]();
    this.#link?.fail(error);
    this.#parting.reach();
    this.#stream.close();
  }
}
