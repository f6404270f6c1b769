/**
 * What is sent when: as much as the link takes without a queue, but while the guest stands still only what that waits
 * for. What the guest asks for does not go through here: see `faultAnswers.ts`.
 */
import { RelayError } from '../../errors.js';
import { maxBatchPages } from '../../link/batch.js';
import { deliveryError } from '../streamError.js';
import type { AheadOfStream } from './aheadOfStream.js';
import type { BatchSender } from './batchSender.js';
import type { HostPages } from './hostPages.js';
import type { SwitchPhases } from './phases.js';
import type { SwitchLink } from './switchLink.js';

export interface PumpHandlers {
  /** What the guest needs will never get through. */
  failed(error: RelayError): void;
  /** Nothing is sent any more. */
  hasEnded(): boolean;
}

/** Sending what the link need not wait for, before faults are looked at again. */
const maxTurnMs = 2;
const resendIntervalMs = 10;
/** A destination that shares its processors is behind by all that the link has taken: while the guest is waited for. */
const maxUnderWayPages = {
  /** It may stop at any time. */
  beforeStop: 1024,
  /** It is loaded. What it will touch first comes meanwhile: with twice as many that takes longer. */
  afterGo: 512,
};
/** Of these, what pays: what it does not find it waits for that long. */
const afterGoPagesPerRttMs = 12;
/** What is urgent overtakes on the link, but not what the destination is busy with: less at a time once it may come. */
export const pagesAtATime = { before: maxBatchPages, after: 32 };

export class Pump {
  readonly #phases: Readonly<SwitchPhases>;
  readonly #link: Pick<SwitchLink, 'isOpenForBulk' | 'rttMs' | 'fail'>;
  readonly #ahead: AheadOfStream | null;
  readonly #hostPages: HostPages;
  readonly #handlers: PumpHandlers;
  #batches: BatchSender | null = null;
  #isHeld = false;
  #isRunning = false;
  #isDue = false;
  #later: NodeJS.Timeout | null = null;

  /** @param ahead - null: all of the guest's memory comes through QEMU's stream */
  constructor(
    phases: Readonly<SwitchPhases>,
    link: Pick<SwitchLink, 'isOpenForBulk' | 'rttMs' | 'fail'>,
    ahead: AheadOfStream | null,
    hostPages: HostPages,
    handlers: PumpHandlers,
  ) {
    this.#phases = phases;
    this.#link = link;
    this.#ahead = ahead;
    this.#hostPages = hostPages;
    this.#handlers = handlers;
  }

  /** What there is to send is sent from here; before that there is nothing. */
  supply(batches: BatchSender): void {
    this.#batches = batches;
  }

  /** Sends nothing until `release`. */
  hold(): void {
    this.#isHeld = true;
  }

  /** `run` begins again. */
  release(): void {
    this.#isHeld = false;
  }

  /** Sends what may be. To be called whenever there may be more to send, or more may be sent. */
  run(): void {
    const batches = this.#batches;
    if (batches === null || this.#isHeld || this.#isRunning || this.#handlers.hasEnded()) return;
    this.#isRunning = true;
    try {
      // The link does not say when it has room for what is urgent.
      if (!batches.resendWanted()) this.#runLater();
      if (this.#isInTheWay(batches)) return;
      this.#sendOn(batches);
    } catch (cause) {
      // What the destination cannot have meant ends the link; what does not come back from where it was put, all.
      if (cause instanceof RelayError) return this.#link.fail(cause);
      return this.#handlers.failed(deliveryError(cause));
    } finally {
      this.#isRunning = false;
    }
    const error = this.#phases.ramEnded ? null : this.#hostPages.outOfRoom(batches.store);
    if (error !== null) this.#handlers.failed(error);
  }

  #sendOn(batches: BatchSender): void {
    // What the link need not wait for costs time all the same, and the guest may be asking for something meanwhile.
    const untilMs = this.#ahead === null ? Infinity : performance.now() + maxTurnMs;
    while (this.#mayGoOn(batches) && (batches.send(this.#limitPages(batches)) || this.#ahead?.send())) {
      if (performance.now() < untilMs) continue;
      this.runSoon();
      break;
    }
  }

  #mayGoOn(batches: BatchSender): boolean {
    return this.#link.isOpenForBulk && batches.pagesUnderWay < this.#maxUnderWayPages(batches);
  }

  /** As soon as all of the guest's memory is here the guest stops, and waits until the destination has what is under way. */
  #maxUnderWayPages({ store }: BatchSender): number {
    const { mayStop, ramEnded, isRunning } = this.#phases;
    if (this.#ahead !== null || isRunning) return Infinity;
    if (ramEnded) return Math.min(maxUnderWayPages.afterGo, afterGoPagesPerRttMs * this.#link.rttMs);
    return mayStop && !store.isFull ? maxUnderWayPages.beforeStop : Infinity;
  }

  #runLater(): void {
    this.#later ??= setTimeout(() => {
      this.#later = null;
      this.run();
    }, resendIntervalMs);
  }

  /** When whatever else is due has been done. */
  runSoon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      this.run();
    });
  }

  /** The guest stands still, and waits for something else. */
  #isInTheWay({ store }: BatchSender): boolean {
    const { ramEnded, hasStopped, hasGone } = this.#phases;
    // Where there is no room, the end of QEMU's stream waits for what is sent.
    return !hasGone && (ramEnded || (hasStopped && !store.isFull));
  }

  /** What costs the link nothing is in nobody's way. */
  #limitPages({ store: { unsent } }: BatchSender): number {
    const isCheap = unsent.fill + unsent.reference > 0;
    const { isRunning, mayStop } = this.#phases;
    return isRunning || (mayStop && !isCheap) ? pagesAtATime.after : pagesAtATime.before;
  }
}
