/**
 * The source relay of a switch. It takes the guest's memory from QEMU at memory speed, and sends it as fast as the link
 * takes it, before the guest has moved and after. Once the guest has stopped it tells what is still to come, then hands
 * over the device state and, when its owner says so, the permission to run. From then on it serves the guest at the
 * destination: what that asks for first, what is near to it next, and then all the rest.
 */
import { StreamDecoder } from '../../stream/decoder.js';
import { splitTail } from '../../stream/deviceState.js';
import { digestBatch } from '../batchDigest.js';
import { newCounters } from '../counters.js';
import { MemoryDigest, pageBytes, RunDigester } from '../digest.js';
import { RelayError } from '../errors.js';
import { BatchBuilder, maxBatchPages, packPages } from '../link/batch.js';
import { BulkWindow } from '../link/bulkWindow.js';
import type { Endpoint, LinkCredentials } from '../link/connection.js';
import { DurableLink, durableConnections } from '../link/durableLink.js';
import { decodeFault } from '../link/faults.js';
import { type Frame, frameType } from '../link/frames.js';
import { dial } from '../link/handshake.js';
import { encodeHints } from '../link/hints.js';
import { TokenBucket } from '../link/tokenBucket.js';
import { PageStore, type PageStoreOptions } from '../store/pageStore.js';
import { encodeRemoteSet } from '../store/remoteSet.js';
import { QemuInput } from './qemuInput.js';
import type { SourceRelayState } from './sourceRelay.js';
import { type CaptureStart, type PageSink, StreamToStore } from './streamToStore.js';
import type { CacheMap } from './teleportMap.js';

export interface SwitchSourceOptions {
  /** Where QEMU's `migrate unix:…` connects to. Made with mode 0600, removed at the end. */
  readonly socketPath: string;
  readonly credentials: LinkCredentials;
  /** For bulk data; one more is for what is urgent. */
  readonly connections: number;
  readonly bandwidthBps: number | null;
  readonly compress: boolean;
  readonly store: PageStoreOptions;
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

/** Pages that the guest still needs from here, by how they will get there. */
export interface Remaining {
  readonly zeroPages: number;
  readonly bytesPages: number;
  readonly referencePages: number;
}

export interface SwitchSourceState extends SourceRelayState {
  readonly isConnected: boolean;
  readonly remaining: Remaining;
  /** Of memory for pages, and in the spill file. */
  readonly storedBytes: number;
  readonly spilledBytes: number;
}

const pieceBytes = 1024 * 1024;
/** Answers overtake on the link, but not what the destination is busy with: less at a time once the guest runs there. */
const pagesAtATime = { before: maxBatchPages, after: 32 };
/** Sent with the device state. At 200 Mbit/s, and compressed, some 15 ms of the guest's pause. */
const maxHotPages = 256;
/** Brought along with a page that was asked for. */
const neighbourPages = 32;
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
  #openLink: DurableLink | null = null;
  #endpoint: Endpoint | null = null;
  #qemu: QemuInput | null = null;
  #store: PageStore | null = null;
  #digest: MemoryDigest | null = null;
  #blockCount = 0;
  #nextAnswer = 0;
  #ramEnded = false;
  #hasGone = false;
  /** The guest runs at the destination. */
  #isRunning = false;
  #isRootSent = false;
  #isPumping = false;
  #settle!: { resolve: () => void; reject: (error: RelayError) => void };
  #settled = false;

  private constructor(options: SwitchSourceOptions, handlers: SwitchSourceHandlers) {
    this.#options = options;
    this.#handlers = handlers;
    this.#digester = new RunDigester(options.credentials.key);
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
    const { credentials, connections, bandwidthBps } = this.#options;
    const peers = await dial(endpoint, credentials, { connections: durableConnections(connections) });
    this.#endpoint = endpoint;
    this.#openLink = new DurableLink(
      peers,
      {
        immediate: (frame) => this.#answer(frame),
        lost: (cause) => this.#fail(cause),
        interrupted: (cause) => this.#handlers.interrupted?.(cause),
        resumed: (gapMs) => this.#handlers.resumed?.(gapMs),
        drained: () => this.#pump(),
      },
      {
        bucket: bandwidthBps === null ? null : new TokenBucket(bandwidthBps),
        bulkWindow: this.#bulkWindow,
      },
    );
    if (this.#settled) return await this.#openLink.close();
    this.#link.ping();
  }

  /** Lets QEMU's stream in, once the relay is connected and has its cache map. */
  begin(): void {
    this.#qemu?.begin();
  }

  /** Nothing is sent before it is there: QEMU's stream waits for it. */
  get #link(): DurableLink {
    return this.#openLink!;
  }

  get state(): SwitchSourceState {
    const remaining = this.#store?.remaining;
    return {
      counters: this.#counters,
      bytesOnWire: this.#openLink?.bytesOnWire ?? 0,
      rttMs: this.#openLink?.rttMs ?? 0,
      connections: this.#openLink?.connections ?? 0,
      reconnects: this.#openLink?.reconnects ?? 0,
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
    };
  }

  /** Replaces the cache map: pages that QEMU sends from now on are looked up in the new one. */
  setCacheMap(map: CacheMap): void {
    this.#capture.setCacheMap(map);
  }

  /**
   * Permits the destination to run the guest; after `ready`. From here on a lost link is not the end.
   * @returns whether that has been sent, or is on its way
   */
  go(): boolean {
    const { credentials, reconnectTimeoutMs } = this.#options;
    if (this.#settled || this.#hasGone) return this.#hasGone;
    this.#hasGone = true;
    this.#bulkWindow.favourLatency();
    this.#link.endure({ reconnectTimeoutMs, by: { dial: this.#endpoint!, credentials } });
    this.#link.sendOrdered(frameType.go, Buffer.alloc(0));
    return true;
  }

  /** Gives up: the link and QEMU's connection are closed. Before QEMU has ended its stream, its migration fails by that. */
  abort(): void {
    this.#fail(new RelayError('VMMIG_RELAY_ABORTED', 'the migration was aborted'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#settled) this.abort();
    await this.#qemu?.[Symbol.asyncDispose]();
    await this.#openLink?.close();
    await this.#store?.[Symbol.asyncDispose]();
  }

  #began({ head, section, blocks }: CaptureStart): PageSink {
    this.#blockCount = blocks.length;
    this.#digest = new MemoryDigest(blocks);
    const frame: CaptureFrame = {
      section: { id: section.id, version: section.version },
      head: head.toString('base64'),
      blocks: blocks.map(({ name, lengthBytes, pageSizeBytes }) => ({ name, lengthBytes, pageSizeBytes })),
    };
    this.#link.sendOrdered(frameType.blocks, Buffer.from(JSON.stringify(frame)));
    const { map } = this.#capture;
    if (map !== null) for (const payload of encodeHints(map.runs())) this.#link.sendOrdered(frameType.hints, payload);
    this.#store = new PageStore(blocks, this.#options.store);
    return this.#store;
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
  #sendHot(store: PageStore): void {
    store.prefer('recent');
    const { seen } = this.#counters.pages;
    let left = Math.min(maxHotPages, seen - this.#counters.totalPages);
    for (; left > 0; left -= pagesAtATime.after)
      if (!this.#sendBatch(store, Math.min(left, pagesAtATime.after))) return;
  }

  /** Sends as much as the link takes without a queue; while the guest stands still, only what that waits for is sent. */
  #pump(): void {
    const store = this.#store;
    if (store === null || this.#settled || this.#isPumping || (this.#ramEnded && !this.#isRunning)) return;
    this.#isPumping = true;
    try {
      const limitPages = this.#isRunning ? pagesAtATime.after : pagesAtATime.before;
      while (this.#link.isOpenForBulk && this.#sendBatch(store, limitPages));
    } finally {
      this.#isPumping = false;
    }
  }

  #sendBatch(store: PageStore, limitPages: number): boolean {
    const sent = store.fillBatch(this.#builder, limitPages);
    if (sent === null) return false;
    this.#tokens.set(this.#link.sendOrdered(frameType.batch, this.#takeBatch()), sent.token);
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
        return this.#fault(frame.payload);
      case frameType.running:
        this.#isRunning = true;
        this.#pump();
        return this.#handlers.running();
      case frameType.refused:
        return this.#handlers.refused(frame.payload.toString('utf8'));
      case frameType.rootResult:
        return this.#conclude(frame.payload[0] === 1);
      case frameType.failure: {
        const message = `the destination relay gave up: ${frame.payload.toString('utf8')}`;
        return this.#fail(new RelayError('VMMIG_RELAY_QEMU', message));
      }
      default:
        throw new RelayError('VMMIG_LINK_PROTOCOL', `the destination relay sent a frame of type ${frame.type}`);
    }
  }

  #acknowledged(sequences: Buffer): void {
    const store = this.#store;
    if (sequences.length % 4 !== 0 || store === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination sent a malformed acknowledgement');
    for (let at = 0; at < sequences.length; at += 4) {
      const sequence = sequences.readUInt32BE(at);
      const token = this.#tokens.get(sequence);
      if (token === undefined || !store.acknowledged(token))
        throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination acknowledged what was not sent');
      this.#tokens.delete(sequence);
    }
    if (!store.isFull) this.#qemu?.resume();
    this.#pump();
    if (this.#hasGone && store.isEmpty && !this.#isRootSent) {
      this.#isRootSent = true;
      this.#link.sendOrdered(frameType.root, this.#digest!.root());
    }
  }

  /** The guest at the destination waits for this page. */
  #fault(payload: Buffer): void {
    const { block, page, count } = decodeFault(payload);
    const store = this.#store;
    if (store === null || block >= this.#blockCount || !this.#hasGone)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asked for what there is not');
    this.#counters.pages.faulted += count;
    const { sent } = store.takeNow(block, page, count, this.#builder);
    if (sent !== null) {
      const sequence = answerBit + this.#nextAnswer++;
      this.#tokens.set(sequence, sent.token);
      this.#link.sendUrgent(frameType.answer, this.#takeBatch(), sequence);
      this.#counters.pages.sent += sent.bytesPages;
    }
    store.moveToFront(block, page + count, neighbourPages);
    this.#pump();
  }

  /** The destination's disk does not hold what the cache map says: the kept bytes go out. */
  #resend({ payload, sequence }: Frame): void {
    const token = this.#tokens.get(sequence);
    const record = payload.length === 2 ? payload.readUInt16BE(0) : -1;
    const run = token === undefined ? null : this.#store!.bytesOf(token, record);
    if (run === null)
      throw new RelayError(
        'VMMIG_LINK_PROTOCOL',
        'the destination asked for what was not sent as a reference, or twice',
      );
    this.#counters.pages.mismatched += run.count;
    this.#counters.pages.sent += run.count;
    this.#link.sendUrgent(frameType.resend, Buffer.concat([payload, packPages(run.bytes)]), sequence);
  }

  #conclude(isEqual: boolean): void {
    if (!this.#isRootSent) throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination compared before the end');
    if (!isEqual)
      return this.#fail(new RelayError('VMMIG_RELAY_VERIFY', "the destination's memory is not the source's"));
    this.#settled = true;
    this.#settle.resolve();
  }

  #fail(error: RelayError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#openLink?.fail(error);
    this.#qemu?.close();
    this.#settle.reject(error);
  }
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.subarray(at, at + pieceBytes);
}

function streamError(cause: unknown): RelayError {
  if (cause instanceof RelayError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new RelayError('VMMIG_RELAY_STREAM', `QEMU's migration stream cannot be relayed: ${message}`, cause);
}
