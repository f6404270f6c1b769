/**
 * Takes the guest from its QEMU's stream: its memory goes into a store, but for what the stream leaves out because it is
 * kept in files; and the destination is told what the stream begins and ends with.
 */
import type { StreamHandler } from '../../../stream/handler.js';
import type { RelayCounters } from '../../counters.js';
import { areSameBlocks, type BlockSize, pagesOfBlocks, type RunDigester } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { frameType } from '../../link/frames.js';
import { decodeHints, encodeHints } from '../../link/hints.js';
import { CaptureLog, type LoggedCapture } from '../../store/captureLog.js';
import { PageStore } from '../../store/pageStore.js';
import type { FilePages } from '../filePages.js';
import type { GuestPages } from '../guestPages.js';
import type { PageRange } from '../memoryStretch.js';
import type { SentAhead } from '../sentAhead.js';
import { type CaptureStart, type PageSink, StreamToStore } from '../streamToStore.js';
import { type CacheMap, TeleportMap } from '../teleportMap.js';
import type { BatchSender } from './batchSender.js';
import type { SwitchSourceOptions } from './options.js';
import { encodeCapture, encodeDevices, encodeRemote } from './switchFrames.js';
import type { SwitchLink } from './switchLink.js';

export interface GuestCaptureHandlers {
  /** There is a store, which pages are about to be put into. Not called where memory is kept in files. */
  opened(store: GuestPages, blocks: readonly BlockSize[]): void;
  /** The guest has stopped: all of the stream's memory is here. */
  ramEnded(): void;
}

export class GuestCapture implements Disposable {
  /** What the stream's parts go to. */
  readonly parts: StreamHandler;
  readonly #options: Pick<SwitchSourceOptions, 'memory' | 'store'>;
  readonly #files: FilePages | null;
  readonly #link: Pick<SwitchLink, 'sendOrdered'>;
  readonly #handlers: GuestCaptureHandlers;
  readonly #toStore: StreamToStore;
  /** Null where another relay could not take this one's place. */
  readonly #log: CaptureLog | null;
  #blocksFrame: Buffer = Buffer.alloc(0);

  /** @param files - of `options.memory`, where there is any */
  constructor(
    options: Pick<SwitchSourceOptions, 'memory' | 'store'>,
    files: FilePages | null,
    link: Pick<SwitchLink, 'sendOrdered'>,
    tools: { readonly counters: RelayCounters; readonly digester: RunDigester },
    handlers: GuestCaptureHandlers,
  ) {
    this.#options = options;
    this.#files = files;
    this.#link = link;
    this.#handlers = handlers;
    const sink = { began: (start: CaptureStart) => this.#began(start), ramEnded: () => handlers.ramEnded() };
    this.parts = this.#toStore = new StreamToStore(sink, tools.counters, tools.digester);
    const logPath = options.memory?.logPath;
    this.#log = logPath === undefined ? null : CaptureLog.create(logPath);
  }

  /**
   * In place of QEMU's stream: what a relay has kept that died after the guest had gone. The files are final.
   *
   * @throws RelayError, StoreError when it is not of this guest
   */
  adopt({ blocks, cache, replay }: LoggedCapture): void {
    const files = this.#files!;
    this.#blocksFrame = blocks;
    replay(files.streamed);
    const pages = pagesOfBlocks(this.#options.memory!.blocks);
    files.setCache(cache.flatMap((payload) => decodeHints(payload, pages)));
    files.freeze();
  }

  /** Pages that come from now on are looked up in this map. */
  setCacheMap(map: CacheMap): void {
    const { memory } = this.#options;
    if (memory === null) this.#toStore.setCacheMap(map);
    else {
      const runs = [...new TeleportMap(memory.blocks, map).runs()];
      this.#files!.setCache(runs);
      this.#log?.cache(encodeHints(runs));
    }
  }

  /** What this sends need not be sent again. */
  useAhead(ahead: SentAhead): void {
    this.#toStore.useAhead(ahead);
  }

  /** QEMU's stream has told what memory the guest has. */
  get hasBegun(): boolean {
    return this.#blocksFrame.length > 0;
  }

  /** Pages that are still to come of the pass that QEMU is in; all of them before it has begun. */
  get leftOfPass(): number {
    return this.hasBegun ? this.#toStore.leftOfPass : Infinity;
  }

  /** What QEMU has sent again last, the last one last: the guest had written to it. */
  get written(): readonly PageRange[] {
    return this.#toStore.written;
  }

  /** Tells the destination of the guest's memory, once QEMU has. */
  sendBlocks(): void {
    this.#link.sendOrdered(frameType.blocks, this.#blocksFrame);
  }

  /** The stream has ended: all of the guest's memory is in the store, or final in the files. */
  finish(): void {
    this.#toStore.flush();
    this.#log?.end();
    this.#files?.freeze();
  }

  /** Tells which pages of bytes are still to come, and the state of the devices. */
  sendEnd({ store, blocks }: Pick<BatchSender, 'store' | 'blocks'>): void {
    for (const payload of encodeRemote(store, blocks.length)) this.#link.sendOrdered(frameType.remote, payload);
    for (const payload of encodeDevices(this.#toStore.deviceTail)) this.#link.sendOrdered(frameType.device, payload);
  }

  [Symbol.dispose](): void {
    this.#log?.[Symbol.dispose]();
  }

  #began(start: CaptureStart): PageSink {
    const { blocks } = start;
    const { memory, store: storeOptions } = this.#options;
    // What was sent ahead names blocks by their places.
    if (memory !== null && !areSameBlocks(blocks, memory.blocks))
      throw new RelayError('VMMIG_RELAY_STREAM', 'the guest has other memory than it had a moment ago');
    this.#blocksFrame = encodeCapture(start, memory !== null);
    this.sendBlocks();
    const { map } = this.#toStore;
    if (map !== null) for (const payload of encodeHints(map.runs())) this.#link.sendOrdered(frameType.hints, payload);
    this.#log?.blocks(this.#blocksFrame);
    if (this.#files !== null) return this.#log?.noting(this.#files.streamed) ?? this.#files.streamed;
    const store = new PageStore(blocks, storeOptions);
    this.#handlers.opened(store, blocks);
    return store;
  }
}
