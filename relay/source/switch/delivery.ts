/**
 * Delivers the guest's memory to the destination: in an order of its own as far as the link takes it, what the guest asks
 * for before all else, and what the destination does not find on its disk once more. This file puts the parts together:
 *
 *   GuestPages ─> BatchSender <─ Pump           what is next, when it may be sent
 *                             <─ AheadOfStream  memory files while the guest runs
 *                             <─ HotPages       what the guest will look at first
 *                             <─ FaultAnswers   what it waits for
 *   HostPages, Takeover                         what the destination says changes that order, or begins it again
 */
import type { RelayCounters } from '../../counters.js';
import type { BlockSize, RunDigester } from '../../digest.js';
import { RelayError } from '../../errors.js';
import { maxBatchPages } from '../../link/batch.js';
import { type Frame, frameType } from '../../link/frames.js';
import { decodeHostPages } from '../../link/hostPages.js';
import { FilePages } from '../filePages.js';
import type { GuestPages } from '../guestPages.js';
import type { PageRange } from '../memoryStretch.js';
import { deliveryError } from '../streamError.js';
import { AheadOfStream } from './aheadOfStream.js';
import { BatchSender } from './batchSender.js';
import { FaultAnswers } from './faultAnswers.js';
import { HostPages } from './hostPages.js';
import { type ExpectedUse, HotPages } from './hotPages.js';
import type { SwitchSourceOptions } from './options.js';
import type { SwitchPhases } from './phases.js';
import { Pump } from './pump.js';
import { type Remaining, remainingOf } from './remaining.js';
import type { SwitchLink } from './switchLink.js';
import { Takeover } from './takeover.js';

export interface DeliveryTools {
  readonly link: SwitchLink;
  readonly phases: Readonly<SwitchPhases>;
  readonly counters: RelayCounters;
  readonly digester: RunDigester;
}

export interface DeliveryHandlers {
  /** The destination has some of what was sent. */
  acknowledged(): void;
  /** What the guest needs will never get through. */
  failed(error: RelayError): void;
  /** Nothing is sent any more. */
  hasEnded(): boolean;
}

export class Delivery implements AsyncDisposable {
  /** Null where all of the guest's memory comes through QEMU's stream: both. */
  readonly files: FilePages | null = null;
  readonly ahead: AheadOfStream | null = null;
  readonly #options: Pick<SwitchSourceOptions, 'memory' | 'store' | 'compress' | 'prefetchShare'>;
  readonly #tools: DeliveryTools;
  readonly #handlers: DeliveryHandlers;
  readonly #hostPages = new HostPages();
  readonly #hotPages: HotPages;
  readonly #pump: Pump;
  readonly #faults: FaultAnswers;
  readonly #takeover: Takeover;
  /** Null before there is a store. */
  #batches: BatchSender | null = null;

  constructor(
    options: Pick<SwitchSourceOptions, 'memory' | 'store' | 'compress' | 'prefetchShare'>,
    tools: DeliveryTools,
    handlers: DeliveryHandlers,
  ) {
    this.#options = options;
    this.#tools = tools;
    this.#handlers = handlers;
    const { link, phases, counters, digester } = tools;
    const { memory } = options;
    if (memory !== null) {
      this.files = new FilePages(memory, digester, counters, options.store);
      this.#batches = this.#newBatches(this.files, memory.blocks);
      this.ahead = new AheadOfStream(this.files, this.#batches, link, {
        pump: () => this.#pump.run(),
        pumpSoon: () => this.#pump.runSoon(),
        failed: (error) => handlers.failed(error),
        hasEnded: () => handlers.hasEnded(),
      });
    }
    this.#hotPages = new HotPages(this.files, options.prefetchShare ?? 1);
    this.#pump = new Pump(phases, link, this.ahead, this.#hostPages, handlers);
    if (this.#batches !== null) this.#pump.supply(this.#batches);
    this.#faults = new FaultAnswers(counters, () => this.#pump.run());
    this.#takeover = new Takeover(this.#pump, this.#faults, (error) => handlers.failed(error));
  }

  /** What QEMU's stream brings goes into this store. */
  open(store: GuestPages, blocks: readonly BlockSize[]): void {
    this.#batches = this.#newBatches(store, blocks);
    this.#hotPages.favour(this.#batches);
    this.#pump.supply(this.#batches);
  }

  /** What is sent from; null before there is anything. */
  get store(): GuestPages | null {
    return this.#batches?.store ?? null;
  }

  get remaining(): Remaining {
    // What lies in huge host pages is kept until the switch, however long the destination has had it.
    const isKept = this.#hostPages.areHuge && !this.#tools.phases.hasGone;
    return remainingOf(isKept ? this.store?.unsent : this.store?.remaining);
  }

  /** In place of what was expected before. */
  expectUse(expected: ExpectedUse): void {
    this.#hotPages.expect(expected);
    if (this.#batches !== null) this.#hotPages.favour(this.#batches);
    this.#pump.run();
  }

  /** Pages that the guest will look at early and that are not on their way yet; null when they are not known. */
  expectedUnsent(isAllCaptured: boolean): number | null {
    return this.#batches === null ? null : this.#hotPages.unsent(this.#batches, isAllCaptured);
  }

  /** Sends what may be. To be called whenever there may be more to send, or more may be sent. */
  run(): void {
    this.#pump.run();
  }

  /**
   * The guest has stopped: sends what costs little, and what it will look at first.
   *
   * @param written - what QEMU has sent again, the last one last
   * @returns what the rest is in
   */
  sendFirst(written: readonly PageRange[]): BatchSender {
    const batches = this.#batches!;
    const { store } = batches;
    while (store.unsent.fill + store.unsent.reference > 0) if (!batches.send(maxBatchPages)) break;
    this.#hotPages.send(batches, written);
    return batches;
  }

  /** The guest goes: what it will need soon follows. */
  sendWanted(): void {
    this.files?.follow('wanted');
    this.#pump.run();
  }

  /** The guest runs at the destination: so does all the rest. */
  sendAll(): void {
    this.files?.follow('all');
    this.#pump.run();
  }

  /** Another destination relay has to be told everything again, once it has said what QEMU has. */
  beginAgain(): void {
    this.#takeover.begin(this.#batches!);
  }

  /** What the destination has all of; null while it does not. */
  get complete(): BatchSender | null {
    const isComplete = !this.#takeover.isUnderWay && this.#batches?.store.isEmpty === true;
    return isComplete ? this.#batches : null;
  }

  /**
   * The destination speaks of pages.
   *
   * @returns false when it does not
   * @throws RelayError VMMIG_LINK_PROTOCOL when it says what cannot be; what fails here is told to `failed`
   */
  hear(frame: Frame): boolean {
    try {
      return this.#hear(frame);
    } catch (cause) {
      if (cause instanceof RelayError) throw cause;
      this.#handlers.failed(deliveryError(cause));
      return true;
    }
  }

  #hear(frame: Frame): boolean {
    const { payload } = frame;
    switch (frame.type) {
      case frameType.acknowledge:
        this.#sent.acknowledged(payload);
        this.#handlers.acknowledged();
        this.#pump.run();
        return true;
      case frameType.givenBack:
        this.#sent.givenBack(payload);
        this.#pump.run();
        return true;
      case frameType.resendRequest:
        this.#sent.want(frame);
        this.#pump.run();
        return true;
      case frameType.fault:
        if (!this.#tools.phases.hasGone)
          throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination asked for what it has not taken over');
        this.#faults.answer(payload, this.#sent);
        return true;
      case frameType.placed:
        this.#takeover.told(frame, this.#sent);
        return true;
      case frameType.hostPages:
        this.#hostPages.learn(decodeHostPages(payload, this.#sent.blocks.length));
        return true;
      default:
        return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.store?.[Symbol.asyncDispose]();
  }

  /** What the destination speaks of has to have been sent. */
  get #sent(): BatchSender {
    if (this.#batches === null)
      throw new RelayError('VMMIG_LINK_PROTOCOL', 'the destination spoke of pages before it was sent any');
    return this.#batches;
  }

  #newBatches(store: GuestPages, blocks: readonly BlockSize[]): BatchSender {
    const { phases, ...tools } = this.#tools;
    const { compress } = this.#options;
    return new BatchSender(store, blocks, {
      ...tools,
      compress,
      sent: (records) => {
        if (phases.hasGone) this.#hostPages.preferRest(records, store);
      },
    });
  }
}
