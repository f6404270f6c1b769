/**
 * The source relay of a switch. It takes the guest's memory from QEMU at memory speed, and sends it as fast as the link
 * takes it, before the guest has moved and after. Once the guest has stopped it tells what is still to come, then hands
 * over the device state and, when its owner says so, the permission to run. From then on it serves the guest at the
 * destination: what that asks for first, what is near to it next, and then all the rest.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { headForPostcopy } from '../../pager/index.js';
import { StreamDecoder } from '../../stream/decoder.js';
import { splitTail } from '../../stream/deviceState.js';
import type { RamBlock } from '../../stream/handler.js';
import { digestBatch } from '../batchDigest.js';
import { newCounters } from '../counters.js';
import { MemoryDigest, pageBytes, pagesOfBlocks, RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { BatchBuilder, type BatchRecord, maxBatchPages, packPages, recordKind } from '../link/batch.js';
import { BulkWindow } from '../link/bulkWindow.js';
import type { Endpoint, LinkConnection, LinkCredentials } from '../link/connection.js';
import { DurableLink, durableConnections } from '../link/durableLink.js';
import { decodeFault } from '../link/faults.js';
import { type Frame, frameType } from '../link/frames.js';
import { dial } from '../link/handshake.js';
import { encodeHints } from '../link/hints.js';
import { PlacedPages } from '../link/placed.js';
import { decodeResendRequest, encodeResend } from '../link/resend.js';
import { decodeSequences } from '../link/sequences.js';
import { TokenBucket } from '../link/tokenBucket.js';
import type { SentSet } from '../store/flights.js';
import { PageStore, type PageStoreOptions } from '../store/pageStore.js';
import { encodeRemoteSet } from '../store/remoteSet.js';
import { FilePages, type GuestMemory } from './filePages.js';
import type { GuestPages } from './guestPages.js';
import { type MemoryStretch, pagesOf } from './memoryStretch.js';
import { QemuInput } from './qemuInput.js';
import type { SourceRelayState } from './sourceRelay.js';
import { streamError } from './streamError.js';
import { type CaptureStart, type PageSink, StreamToStore } from './streamToStore.js';
import { type CacheMap, TeleportMap } from './teleportMap.js';

export interface SwitchSourceOptions {
  /** Where QEMU's `migrate unix:…` connects to. Made with mode 0600, removed at the end. */
  readonly socketPath: string;
  readonly credentials: LinkCredentials;
  /** For bulk data; one more is for what is urgent. */
  readonly connections: number;
  readonly bandwidthBps: number | null;
  readonly compress: boolean;
  readonly store: PageStoreOptions;
  /** Of a guest whose memory QEMU leaves out of its stream; null: all of it comes through the stream. */
  readonly memory: GuestMemory | null;
  /** So long the destination may be out of reach after the switch. */
  readonly reconnectTimeoutMs: number;
}

export interface SwitchSourceHandlers {
  /** The guest has stopped, and all that the destination needs to run it is on its way but for the permission: see `go`. */
  ready(): void;
  /** The destination says that the guest runs there. */
  running(): void;
  /** The destination says that it does not, and will not. */
  refused(message: string): void;
  /** After `go`: the network failed; it is tried again. */
  interrupted?(cause: RelayError): void;
  resumed?(gapMs: number): void;
  /** After `go`: there is no link any more, and none is looked for. What the guest needs is kept: see `reconnect`. */
  lost?(cause: RelayError): void;
}

/** What the destination tells the blocks by. */
export interface CaptureFrame {
  readonly section: { readonly id: number; readonly version: number };
  /** Base64. */
  readonly head: string;
  readonly blocks: readonly {
    readonly name: string;
    readonly lengthBytes: number;
    readonly pageSizeBytes: number | null;
  }[];
}

/** What the guest will look at first when it goes on. */
export interface ExpectedUse {
  /** While it stands still, or as soon as it does not: goes with the device state. */
  readonly now: readonly MemoryStretch[];
  /** Goes before the rest. */
  readonly soon: readonly MemoryStretch[];
}

/** What the destination is sent ahead of QEMU's stream is told by: the blocks that this will have. */
export interface MemoryFrame {
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
}

/** Pages that the guest still needs from here, by how they will get there. */
export interface Remaining {
  readonly zeroPages: number;
  readonly bytesPages: number;
  readonly referencePages: number;
}

export interface SwitchSourceState extends SourceRelayState {
  readonly isConnected: boolean;
  /** How often another destination relay has taken the place of the one before. */
  readonly takeovers: number;
  readonly remaining: Remaining;
  /** Of memory for pages, and in the spill file. */
  readonly storedBytes: number;
  readonly spilledBytes: number;
  /** All that can be sent while the guest runs has been, as far as the destination holds it; false where QEMU's stream says. */
  readonly isSentAhead: boolean;
}

const pieceBytes = 1024 * 1024;
/** So long after all has been sent ahead, what has changed since is. */
const aheadIntervalMs = 1000;
/** TCP, and the window for bulk data, begin with little and double that each round trip. */
const warmUpRoundTrips = 6;
const warmUpPollMs = 2;
/** What is still under way then takes no time to speak of. */
const freeLineBytes = 64 * 1024;
const watchIntervalMs = 50;
/** Digesting memory, before faults are looked at again. */
const maxTurnMs = 2;
/** Magic and version. */
const headerBytes = 8;
/** What is urgent overtakes on the link, but not what the destination is busy with: less at a time once it may come. */
const pagesAtATime = { before: maxBatchPages, after: 32 };
/** Sent with the device state. At 200 Mbit/s, and compressed, some 15 ms of the guest's pause. */
const maxHotPages = 256;
/** Brought along with a page that was asked for: those of its aligned group in the answer, which takes 1 ms at 200 Mbit/s, others next. */
const answerPages = 16;
const neighbourPages = 32;
/** Of the destination's host, in pages: 32 MiB. */
const maxHostPage = 8192;
/** Tells the batches that answer faults from those that are sent in order. */
const answerBit = 2 ** 31;

export class SwitchSource implements AsyncDisposable {
  /** Resolves when the destination has everything and both sides have found it equal; rejects with a `RelayError`. */
  readonly finished: Promise<void>;
  readonly #options: SwitchSourceOptions;
  readonly #handlers: SwitchSourceHandlers;
  readonly #counters = newCounters();
  readonly #digester: RunDigester;
  readonly #capture: StreamToStore;
  readonly #decoder: StreamDecoder;
  readonly #builder = new BatchBuilder();
  /** By the sequence under which a batch was sent: the store's token. */
  readonly #tokens = new Map<number, number>();
  readonly #bulkWindow = new BulkWindow();
  readonly #bucket: TokenBucket | null;
  #openLink: DurableLink | null = null;
  #endpoint: Endpoint | null = null;
  #qemu: QemuInput | null = null;
  #store: GuestPages | null = null;
  /** The same, where memory is kept in files. */
  readonly #files: FilePages | null = null;
  readonly #released = new AbortController();
  #isAhead = false;
  #isSentAhead = false;
  #aheadSinceMs = 0;
  #aheadAgain: NodeJS.Timeout | undefined;
  #surveyed: Promise<void> = Promise.resolve();
  /** Of the guest's memory: see `expectUse`. */
  #expected: ExpectedUse = { now: [], soon: [] };
  #watching: NodeJS.Timeout | undefined;
  #isWatched = false;
  /** QEMU says so before its stream does. */
  #hasStopped = false;
  #mayStop = false;
  #digest: MemoryDigest | null = null;
  #capturedBlocks: CaptureFrame['blocks'] = [];
  #blocksFrame: Buffer = Buffer.alloc(0);
  /** Of links that are gone. */
  #past = { bytesOnWire: 0, reconnects: 0, takeovers: 0 };
  /** A destination relay that takes over says what QEMU has. Until it has, nothing is sent and faults wait. */
  #placed: PlacedPages | null = null;
  readonly #waitingFaults: Buffer[] = [];
  #isReconnecting = false;
  /** For each block, how many pages a page of the destination's host has, where that is not one in all of them. */
  #hostPages: readonly number[] | null = null;
  #blockCount = 0;
  #nextAnswer = 0;
  #ramEnded = false;
  #hasGone = false;
  /** The guest runs at the destination. */
  #isRunning = false;
  #isRootSent = false;
  #isPumping = false;
  #isPumpDue = false;
  #settle!: { resolve: () => void; reject: (error: RelayError) => void };
  #settled = false;

  private constructor(options: SwitchSourceOptions, handlers: SwitchSourceHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
    this.#bucket = options.bandwidthBps === null ? null : new TokenBucket(options.bandwidthBps);
    this.#capture = new StreamToStore(
      {
        began: (start) => this.#began(start),
        ramEnded: () => {
          this.#ramEnded = true;
        },
      },
      this.#counters,
      this.#digester,
    );
    this.#decoder = new StreamDecoder(this.#capture);
    this.#bulkWindow.favourThroughput();
    if (options.memory !== null) this.#store = this.#files = this.#openFiles(options.memory);
    this.finished = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.finished.catch(() => {});
  }

  /** Listens for QEMU, whose stream waits for `begin`. */
  static async listen(options: SwitchSourceOptions, handlers: SwitchSourceHandlers): Promise<SwitchSource> {
    const relay = new SwitchSource(options, handlers);
    relay.#qemu = await QemuInput.listen(options.socketPath, {
      bytes: (bytes) => relay.#feed(bytes),
      end: () => relay.#endOfStream(),
      lost: (error) => relay.#fail(error),
    });
    return relay;
  }

  /** Meets the destination relay. */
  async connect(endpoint: Endpoint): Promise<void> {
    const peers = await this.#dial(endpoint);
    this.#endpoint = endpoint;
    this.#openLink = this.#newLink(peers);
    if (this.#settled) return await this.#openLink.close();
    this.#link.ping();
    if (this.#files !== null) this.#beginAhead(this.#options.memory!);
  }

  /**
   * Meets a destination relay that has taken the place of the one before; from `go` on. It says what QEMU has already,
   * and is told all the rest again.
   *
   * @throws RelayError VMMIG_LINK_… when it cannot be met: everything is as before then
   */
  async reconnect(endpoint: Endpoint): Promise<void> {
    const { host, port } = this.#endpoint ?? {};
    if (this.#link.isConnected && host === endpoint.host && port === endpoint.port) return;
    if (!this.#hasGone || this.#settled || this.#isReconnecting)
      throw new RelayError('VMMIG_LINK_CONNECT', 'the source relay has no use for another link now');
    this.#isReconnecting = true;
    try {
      const peers = await this.#dial(endpoint);
      const old = this.#link;
      const { bytesOnWire, reconnects, takeovers } = this.#past;
      this.#past = {
        bytesOnWire: bytesOnWire + old.bytesOnWire,
        reconnects: reconnects + old.reconnects,
        takeovers: takeovers + 1,
      };
      this.#endpoint = endpoint;
      this.#openLink = this.#newLink(peers);
      void old.close();
      if (this.#settled) return await this.#link.close();
      this.#beginAgain();
    } finally {
      this.#isReconnecting = false;
    }
  }

  /** Somebody who has asked QEMU there says that the destination has everything; its relay could not tell any more. */
  conclude(): void {
    if (this.#settled) return;
    this.#settled = true;
    void this.#openLink?.close();
    void this.#giveBack().then(this.#settle.resolve);
  }

  async #dial(endpoint: Endpoint): Promise<LinkConnection[]> {
    const { credentials, connections } = this.#options;
    return await dial(endpoint, credentials, { connections: durableConnections(connections) });
  }

  #newLink(peers: readonly LinkConnection[]): DurableLink {
    const link: DurableLink = new DurableLink(
      peers,
      {
        immediate: (frame) => this.#answer(frame),
        lost: (cause) => this.#lostLink(link, cause),
        interrupted: (cause) => this.#handlers.interrupted?.(cause),
        resumed: (gapMs) => this.#handlers.resumed?.(gapMs),
        drained: () => this.#pump(),
      },
      { bucket: this.#bucket, bulkWindow: this.#bulkWindow },
    );
    return link;
  }

  /** Before `go` that is the end. After it what the guest needs may be here and nowhere else. */
  #lostLink(link: DurableLink, cause: RelayError): void {
    if (!this.#hasGone) this.#fail(cause);
    else if (link === this.#openLink && !this.#settled) this.#handlers.lost?.(cause);
  }

  /** Tells a relay that knows nothing yet. The root covers what is sent from here on. */
  #beginAgain(): void {
    this.#tokens.clear();
    this.#waitingFaults.length = 0;
    this.#isRootSent = false;
    this.#digest = new MemoryDigest(this.#capturedBlocks);
    this.#placed = new PlacedPages(pagesOfBlocks(this.#capturedBlocks));
    this.#endure();
    this.#link.sendOrdered(frameType.blocks, this.#blocksFrame);
  }

  #endure(): void {
    const { credentials, reconnectTimeoutMs } = this.#options;
    this.#link.endure({ reconnectTimeoutMs, by: { dial: this.#endpoint!, credentials } });
  }

  /** Lets QEMU's stream in, once the relay is connected and has its cache map. */
  begin(): void {
    this.#qemu?.begin();
    if (this.#files === null) return;
    this.#files.hintAll();
    this.#pump();
    void this.#surveyed.then(() => this.#watch());
  }

  /** May be called again, with what is known by then. */
  expectUse(expected: ExpectedUse): void {
    this.#expected = expected;
    this.#favourExpected();
    this.#pump();
  }

  #favourExpected(): void {
    for (const range of this.#rangesOf(this.#expected.soon)) this.#store?.favour(range);
  }

  #rangesOf(stretches: readonly MemoryStretch[]) {
    return pagesOf(stretches, this.#options.memory?.blocks ?? this.#capturedBlocks);
  }

  /** QEMU may stop the guest at any time: little is to queue before what that then waits for. */
  mayStop(): void {
    this.#mayStop = true;
  }

  /** QEMU says that the guest has stopped: what its memory holds follows, and nothing else is to be in its way. */
  guestStopped(): void {
    this.#hasStopped = true;
  }

  /** Looks for what the guest keeps writing to, a little at a time. */
  #watch(): void {
    if (!this.#isAhead || this.#settled) return;
    this.#isWatched ||= !this.#files!.watch(maxTurnMs);
    this.#watching = setTimeout(() => this.#watch(), this.#isWatched ? watchIntervalMs : 0);
  }

  /** Nothing is sent before it is there: QEMU's stream waits for it. */
  get #link(): DurableLink {
    return this.#openLink!;
  }

  get state(): SwitchSourceState {
    // What lies in huge host pages is kept until the switch, however long the destination has had it.
    const remaining = this.#hostPages !== null && !this.#hasGone ? this.#store?.unsent : this.#store?.remaining;
    return {
      counters: this.#counters,
      bytesOnWire: this.#past.bytesOnWire + (this.#openLink?.bytesOnWire ?? 0),
      rttMs: this.#openLink?.rttMs ?? 0,
      connections: this.#openLink?.connections ?? 0,
      reconnects: this.#past.reconnects + (this.#openLink?.reconnects ?? 0),
      takeovers: this.#past.takeovers,
      isConnected: this.#openLink?.isConnected ?? false,
      ramEnded: this.#ramEnded,
      backlogBytes: (remaining?.bytes ?? 0) * pageBytes,
      opaqueSections: [],
      remaining: {
        zeroPages: remaining?.fill ?? 0,
        bytesPages: remaining?.bytes ?? 0,
        referencePages: remaining?.reference ?? 0,
      },
      storedBytes: this.#store?.heldBytes ?? 0,
      spilledBytes: this.#store?.spilledBytes ?? 0,
      isSentAhead: this.#isSentAhead,
    };
  }

  /** Replaces the cache map: pages that QEMU sends from now on are looked up in the new one. */
  setCacheMap(map: CacheMap): void {
    const { memory } = this.#options;
    if (memory === null) this.#capture.setCacheMap(map);
    else this.#files!.setCache(new TeleportMap(memory.blocks, map).runs());
  }

  /** Resolves when what is sent ahead has made the line known: what the guest then waits for crosses it at full speed. */
  async warmedUp(signal: AbortSignal): Promise<void> {
    const sinceMs = this.#aheadSinceMs;
    const isWarm = () => this.#isSentAhead || performance.now() - sinceMs >= warmUpRoundTrips * this.#link.rttMs;
    while (!this.#settled && !(isWarm() && this.#isWatched)) await delay(warmUpPollMs, undefined, { signal });
  }

  /**
   * QEMU is about to stop the guest, whose memory is kept in files: what is sent ahead ends, so that nothing queues before
   * what the guest then waits for. Resolves when the line is free.
   */
  async endAhead(signal: AbortSignal): Promise<void> {
    this.#isAhead = false;
    clearTimeout(this.#watching);
    this.#files!.watch(maxTurnMs);
    while (!this.#settled && this.#bulkWindow.inFlightBytes > freeLineBytes)
      await delay(warmUpPollMs, undefined, { signal });
  }

  /**
   * Permits the destination to run the guest; after `ready`. From here on a lost link is not the end.
   * @returns false when the link was lost before, and the destination will never know
   */
  go(): boolean {
    if (this.#settled || this.#hasGone) return this.#hasGone;
    this.#hasGone = true;
    this.mayStop();
    this.#bulkWindow.favourLatency();
    this.#endure();
    this.#link.sendOrdered(frameType.go, Buffer.alloc(0));
    // While the guest is loaded there, only what is short and makes its first steps shorter.
    this.#files?.follow('hints');
    this.#pump();
    return true;
  }

  /** Gives up: the link and QEMU's connection are closed. Before QEMU has ended its stream, its migration fails by that. */
  abort(): void {
    this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#settled) this.abort();
    this.#released.abort();
    clearTimeout(this.#aheadAgain);
    clearTimeout(this.#watching);
    await this.#surveyed;
    await this.#qemu?.[Symbol.asyncDispose]();
    await this.#openLink?.close();
    await this.#store?.[Symbol.asyncDispose]();
  }

  #openFiles(memory: GuestMemory): FilePages {
    const { blocks } = memory;
    this.#blockCount = blocks.length;
    this.#digest = new MemoryDigest(blocks);
    return new FilePages(memory, this.#digester, this.#counters, this.#options.store);
  }

  /** The guest's memory is there to be read: the destination gets of it what the link takes until QEMU's stream comes. */
  #beginAhead({ blocks }: GuestMemory): void {
    const frame: MemoryFrame = { blocks: blocks.map(({ name, lengthBytes }) => ({ name, lengthBytes })) };
    this.#link.sendOrdered(frameType.memory, Buffer.from(JSON.stringify(frame)));
    this.#isAhead = true;
    this.#aheadSinceMs = performance.now();
    // What it does not find before the guest stops is found when it is read.
    this.#surveyed = this.#files!.survey(this.#released.signal).catch((cause) => this.#fail(streamError(cause)));
    void this.#surveyed.then(() => this.#pump());
  }

  #began({ head, section, blocks }: CaptureStart): PageSink {
    if (this.#files === null) {
      this.#blockCount = blocks.length;
      this.#digest = new MemoryDigest(blocks);
    } else this.#expectBlocks(blocks);
    const frame: CaptureFrame = {
      section: { id: section.id, version: section.version },
      head: (this.#files === null ? head : withoutFiles(head, blocks)).toString('base64'),
      blocks: blocks.map(({ name, lengthBytes, pageSizeBytes }) => ({ name, lengthBytes, pageSizeBytes })),
    };
    this.#capturedBlocks = frame.blocks;
    this.#blocksFrame = Buffer.from(JSON.stringify(frame));
    this.#link.sendOrdered(frameType.blocks, this.#blocksFrame);
    const { map } = this.#capture;
    if (map !== null) for (const payload of encodeHints(map.runs())) this.#link.sendOrdered(frameType.hints, payload);
    if (this.#files !== null) return this.#files.streamed;
    const store = new PageStore(blocks, this.#options.store);
    this.#store = store;
    this.#favourExpected();
    return store;
  }

  /** What was sent ahead names blocks by their places. */
  #expectBlocks(blocks: readonly RamBlock[]): void {
    const expected = this.#options.memory!.blocks;
    const isSame = ({ name, lengthBytes }: RamBlock, at: number) =>
      name === expected[at]?.name && lengthBytes === expected[at].lengthBytes;
    if (blocks.length !== expected.length || !blocks.every(isSame))
      throw new RelayError('VMMIG_RELAY_STREAM', 'the guest has other memory than it had a moment ago');
  }

  #feed(bytes: Buffer): boolean {
    this.#counters.bytes.stream += bytes.length;
    try {
      this.#decoder.feed(bytes);
      this.#pump();
    } catch (cause) {
      this.#fail(streamError(cause));
      return false;
    }
    return this.#store?.isFull !== true;
  }

  /** QEMU has sent everything: the guest is stopped, and this is all that keeps it from running at the destination. */
  #endOfStream(): void {
    try {
      this.#decoder.end();
      this.#capture.flush();
      this.#isAhead = false;
      this.#files?.freeze();
      const store = this.#store!;
      while (store.unsent.fill + store.unsent.reference > 0) if (!this.#sendBatch(store, maxBatchPages)) break;
      this.#sendHot(store);
      const runs = Array.from({ length: this.#blockCount }, (_, block) => store.remoteSet(block));
      for (const piece of pieces(encodeRemoteSet(runs))) this.#link.sendOrdered(frameType.remote, piece);
      for (const piece of pieces(splitTail(this.#capture.deviceTail).deviceState)) {
        const lengthBytes = Buffer.alloc(4);
        lengthBytes.writeUInt32BE(piece.length);
        this.#link.sendOrdered(frameType.device, Buffer.concat([lengthBytes, packPages(piece)]));
      }
    } catch (cause) {
      return this.#fail(streamError(cause));
    }
    this.#handlers.ready();
  }

  /**
   * What the guest wrote last it will touch first, its devices' rings above all: while QEMU loads it nothing else can be
   * asked for, and each such page would cost a round trip.
   */
  #sendHot(store: GuestPages): void {
    store.prefer('recent');
    const { seen } = this.#counters.pages;
    let left = Math.min(maxHotPages, seen - this.#counters.totalPages);
    for (; left > 0; left -= pagesAtATime.after) if (!this.#sendBatch(store, Math.min(left, pagesAtATime.after))) break;
    const { now } = this.#expected;
    const written = this.#files?.written.slice(0, maxHotPages).map((page) => ({ ...page, count: 1 })) ?? [];
    for (const { block, page, count } of [...this.#rangesOf(now), ...written])
      this.#launch(store.takeNow(block, page, count, this.#builder).sent);
  }

  /** Sends as much as the link takes without a queue; while the guest stands still, only what that waits for is sent. */
  #pump(): void {
    const store = this.#store;
    if (this.#placed !== null) return;
    if (store === null || this.#settled || this.#isPumping || this.#openLink === null) return;
    // What follows from files is told by digests at first, which wait for nothing and are soon needed.
    const mayFollow = this.#files === null ? this.#isRunning : this.#hasGone;
    // Where there is no room, the end of QEMU's stream waits for what is sent.
    if ((this.#ramEnded || (this.#hasStopped && !store.isFull)) && !mayFollow) return;
    this.#isPumping = true;
    try {
      // What the link need not wait for costs time all the same, and the guest may be asking for something meanwhile.
      const untilMs = this.#files === null ? Infinity : performance.now() + maxTurnMs;
      while (this.#link.isOpenForBulk && (this.#sendBatch(store, this.#limitPages(store)) || this.#sendAhead())) {
        if (performance.now() < untilMs) continue;
        this.#pumpSoon();
        break;
      }
    } finally {
      this.#isPumping = false;
    }
    if (this.#hostPages !== null && !this.#ramEnded) this.#requireRoom(store);
  }

  /** Nothing of huge host pages is acknowledged before the switch, so that waiting makes no room. */
  #requireRoom({ isFull, unsent }: GuestPages): void {
    if (!isFull || unsent.bytes + unsent.fill + unsent.reference > 0) return;
    const message =
      'the guest lies in huge pages, and all that is in use of them has to be kept until it has moved: give the page store more memory, or let it spill';
    this.#fail(new RelayError('VMMIG_RELAY_STREAM', message));
  }

  /** What costs the link nothing is in nobody's way. */
  #limitPages({ unsent }: GuestPages): number {
    const isCheap = unsent.fill + unsent.reference > 0;
    return this.#isRunning || (this.#mayStop && !isCheap) ? pagesAtATime.after : pagesAtATime.before;
  }

  #pumpSoon(): void {
    if (this.#isPumpDue) return;
    this.#isPumpDue = true;
    setImmediate(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  #sendBatch(store: GuestPages, limitPages: number): boolean {
    return this.#launch(store.fillBatch(this.#builder, limitPages));
  }

  #launch(sent: SentSet | null): boolean {
    if (sent === null) return false;
    const begun = this.#hasGone && this.#hostPages !== null ? this.#builder.contents().records : [];
    this.#tokens.set(this.#link.sendOrdered(frameType.batch, this.#takeBatch()), sent.token);
    this.#counters.pages.sent += sent.bytesPages;
    for (const run of begun) this.#preferRest(run);
    return true;
  }

  /** QEMU takes a huge host page as a whole: until it has all of one that was begun, the rest takes memory there. */
  #preferRest({ kind, block, page, count }: BatchRecord): void {
    const size = this.#hostPages![block]!;
    if (size === 1 || kind === recordKind.fill) return;
    const from = page - (page % size);
    this.#store!.moveToFront(block, from, Math.ceil((page + count - from) / size) * size);
  }

  /** Of memory that the guest may still write to: no part of what is compared in the end. */
  #sendAhead(): boolean {
    const files = this.#files;
    if (files === null || !this.#isAhead || files.awaitsAll) return false;
    if (files.isHinted) {
      this.#isSentAhead = true;
      this.#aheadAgain ??= setTimeout(() => {
        this.#aheadAgain = undefined;
        files.hintAgain();
        this.#pump();
      }, aheadIntervalMs);
      return false;
    }
    const sent = files.fillAhead(this.#builder, maxBatchPages);
    if (sent === null) {
      // There may be a lot of memory with nothing in it.
      this.#pumpSoon();
      return false;
    }
    const payload = this.#builder.take(this.#options.compress);
    this.#tokens.set(this.#link.sendOrdered(frameType.ahead, payload), sent.token);
    this.#counters.pages.sent += sent.bytesPages;
    return true;
  }

  #takeBatch(): Buffer {
    digestBatch(this.#digest!, this.#digester, this.#builder.contents());
    return this.#builder.take(this.#options.compress);
  }

  #answer(frame: Frame): void {
    switch (frame.type) {
      case frameType.acknowledge:
        return this.#acknowledged(frame.payload);
      case frameType.resendRequest:
        return this.#resend(frame);
      case frameType.fault:
        if (this.#placed !== null) return void this.#waitingFaults.push(frame.payload);
        return this.#fault(frame.payload);
      case frameType.placed:
        return this.#takenOver(frame);
      case frameType.hostPages:
        return this.#learnHostPages(frame.payload);
      case frameType.givenBack:
        this.#settleBatches(frame.payload, (token) => this.#store!.givenBack(token));
        return this.#pump();
      case frameType.running:
        this.#isRunning = true;
        this.#files?.follow('all');
        this.#pump();
        this.#endIfEmpty();
        return this.#handlers.running();
      case frameType.refused:
        return this.#handlers.refused(frame.payload.toString('utf8'));
      case frameType.rootResult:
        return this.#conclude(frame.payload[0] === 1);
      case frameType.failure: {
        const message = `the destination relay gave up: ${frame.payload.toString('utf8')}`;
        return this.#link.fail(new RelayError('VMMIG_RELAY_QEMU', message));
      }
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the destination relay sent a frame of type ${frame.type}`);
    }
  }

  #acknowledged(sequences: Buffer): void {
    this.#settleBatches(sequences, (token) => this.#store!.acknowledged(token));
    if (!this.#store!.isFull) this.#qemu?.resume();
    this.#pump();
    this.#endIfEmpty();
  }

  /** @param settle false when no such batch is under way */
  #settleBatches(sequences: Buffer, settle: (token: number) => boolean): void {
    for (const sequence of decodeSequences(sequences)) {
      const token = this.#tokens.get(sequence);
      if (token === undefined || !settle(token))
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination acknowledged what was not sent');
      this.#tokens.delete(sequence);
    }
  }

  #learnHostPages(payload: Buffer): void {
    const sizes = this.#capturedBlocks.map((_, at) => (payload.length < 4 * at + 4 ? 0 : payload.readUInt32BE(4 * at)));
    if (payload.length !== 4 * sizes.length || sizes.some((size) => size < 1 || size > maxHostPage))
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination has impossible pages');
    this.#hostPages = sizes;
  }

  #endIfEmpty(): void {
    if (this.#placed !== null || this.#isRootSent) return;
    if (!this.#isRunning || this.#store?.isEmpty !== true) return;
    this.#isRootSent = true;
    this.#link.sendOrdered(frameType.root, this.#digest!.root());
  }

  /** The rest is to be sent, again or for the first time. */
  #takenOver({ sequence, payload }: Frame): void {
    const placed = this.#placed;
    if (placed === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination told what it has without being asked');
    if (!placed.add(sequence, payload)) return;
    try {
      this.#store!.resync((block, page) => placed.has(block, page));
    } catch (cause) {
      return this.#fail(new RelayError('VMMIG_RELAY_VERIFY', (cause as Error).message, cause));
    }
    this.#placed = null;
    for (const fault of this.#waitingFaults.splice(0)) this.#fault(fault);
    this.#pump();
    this.#endIfEmpty();
  }

  /** The guest at the destination waits for this page. */
  #fault(payload: Buffer): void {
    const { block, page, count } = decodeFault(payload);
    const store = this.#store;
    if (store === null || block >= this.#blockCount || !this.#hasGone)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asked for what there is not');
    this.#counters.pages.faulted += count;
    const from = page - (page % answerPages);
    const end = Math.ceil((page + count) / answerPages) * answerPages;
    // A huge page takes several.
    while (this.#answerNow(store, block, from, end - from) && count > maxBatchPages);
    store.moveToFront(block, end, neighbourPages);
    this.#pump();
  }

  #answerNow(store: GuestPages, block: number, page: number, count: number): boolean {
    const { sent } = store.takeNow(block, page, count, this.#builder);
    if (sent === null) return false;
    const sequence = answerBit + this.#nextAnswer++;
    this.#tokens.set(sequence, sent.token);
    this.#link.sendUrgent(frameType.answer, this.#takeBatch(), sequence);
    this.#counters.pages.sent += sent.bytesPages;
    return true;
  }

  /** The destination's disk does not hold what the cache map says: the kept bytes go out. */
  #resend({ payload, sequence }: Frame): void {
    const token = this.#tokens.get(sequence);
    const run = token === undefined ? null : this.#store!.bytesOf(token, decodeResendRequest(payload));
    if (run === null)
      throw new RelayError(
        'VMMIG_LINK_PROTOCOL',
        'the destination asked for what was not sent as a reference, or twice',
      );
    if (run.isHeld !== true) this.#counters.pages.mismatched += run.count;
    this.#counters.pages.sent += run.count;
    this.#link.sendUrgent(frameType.resend, encodeResend(payload, run.bytes), sequence);
  }

  #conclude(isEqual: boolean): void {
    if (!this.#isRootSent) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination compared before the end');
    if (!isEqual)
      return this.#fail(new RelayError('VMMIG_RELAY_VERIFY', "the destination's memory is not the source's"));
    this.#settled = true;
    void this.#giveBack().then(this.#settle.resolve);
  }

  /** The guest lives elsewhere, whole: this host need not keep its memory, however long the files are kept. */
  async #giveBack(): Promise<void> {
    for (const { place, lengthBytes } of this.#options.memory?.blocks ?? []) {
      // Where the file system cannot do it, the memory is free when the file is removed.
      await place?.file.release(place.fileOffset, lengthBytes).catch(() => {});
    }
  }

  #fail(error: RelayError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#openLink?.fail(error);
    this.#qemu?.close();
    this.#settle.reject(error);
  }
}

/** The destination's QEMU gets the memory that this stream leaves out. */
function withoutFiles(head: Buffer, blocks: readonly RamBlock[]): Buffer {
  return headForPostcopy({ configuration: head.subarray(headerBytes), blocks }, () => pageBytes).head;
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}
